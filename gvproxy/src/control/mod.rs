//! The control process: it talks to whoever gives orders, and carries no packet.
