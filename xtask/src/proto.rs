//! The checked-in code of the DHCP proxy's messages, made from their `.proto` file without `protoc`.
//!
//! The compiler for it is forty crates that nobody needs otherwise, so they are behind the feature `proto`. Built
//! without it, this chore starts cargo once more with the feature.

#[cfg(feature = "proto")]
pub(crate) use generate::run;

#[cfg(not(feature = "proto"))]
pub(crate) fn run(check: bool) -> crate::tool::Done {
    let mut again =
        crate::tool::cargo(&["run", "--quiet", "--package", "xtask", "--features", "proto", "--", "proto"]);
    if check {
        again.arg("--check");
    }
    crate::tool::run(&mut again)
}

#[cfg(feature = "proto")]
mod generate {
    use crate::tool::{self, Done};

    const FOLDER: &str = "netavark-plugin/proto";
    const SOURCE: &str = "netavark_proxy.proto";
    const GENERATED: &str = "netavark-plugin/src/proto/netavark_proxy.rs";

    /// Writes the code, or compares it with what is there.
    pub(crate) fn run(check: bool) -> Done {
        let fresh = generate()?;
        let place = tool::root().join(GENERATED);
        let said = |error: std::io::Error| format!("{GENERATED}: {error}");
        if check {
            let there = std::fs::read_to_string(&place).map_err(said)?;
            if there != fresh {
                return Err(format!(
                    "{GENERATED} is not what {FOLDER}/{SOURCE} makes; run cargo xtask proto"
                ));
            }
            println!("{GENERATED} is up to date");
            return Ok(());
        }
        std::fs::write(&place, fresh).map_err(said)?;
        println!("{GENERATED}");
        Ok(())
    }

    fn generate() -> Done<String> {
        let said = |error: &dyn std::fmt::Display| format!("{FOLDER}/{SOURCE}: {error}");
        let folder = tool::root().join(FOLDER);
        let descriptors = protox::compile([SOURCE], [&folder]).map_err(|error| said(&error))?;
        let out = tool::target().join("proto");
        std::fs::create_dir_all(&out).map_err(|error| said(&error))?;
        tonic_prost_build::configure()
            .out_dir(&out)
            // The lease file and the test client speak JSON; a key that is absent is empty.
            .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(".", "#[serde(default)]")
            .compile_fds(descriptors)
            .map_err(|error| said(&error))?;
        std::fs::read_to_string(out.join("netavark_proxy.rs")).map_err(|error| said(&error))
    }
}
