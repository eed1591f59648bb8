//! Who may reach whom.
