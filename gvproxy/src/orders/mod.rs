//! What the control process asks of the one that carries packets, and how that carries it out.
