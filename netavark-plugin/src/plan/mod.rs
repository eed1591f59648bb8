//! Plans: what has to be done for one container on one network, worked out without touching the system.
