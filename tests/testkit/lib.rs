//! The testkit: simulator, fake guests and hosts, network namespaces.
