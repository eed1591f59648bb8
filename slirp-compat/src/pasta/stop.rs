//! Why a command line is not carried out.

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// `--print-capabilities`.
    Capabilities,
    /// A command line that cannot be understood: this line and the usage text on stderr, exit code 1.
    Usage(String),
    /// A mistake in a value, or options that do not go together: these lines on stderr, exit code 1.
    Value(String),
}
