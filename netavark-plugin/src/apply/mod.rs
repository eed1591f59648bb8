//! Carrying a plan out, with a record of how to undo each step.
