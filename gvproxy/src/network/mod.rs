//! The virtual network: from the configuration to engine, zones and leases.
