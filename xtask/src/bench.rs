pub(crate) struct Wish {
    pub(crate) rounds: usize,
    pub(crate) only: Option<String>,
    pub(crate) binary: Option<std::path::PathBuf>,
    pub(crate) write: bool,
}
pub(crate) fn run(_: &Wish) -> Result<(), String> {
    Ok(())
}
