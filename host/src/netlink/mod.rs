//! Route netlink (rtnetlink(7)).
