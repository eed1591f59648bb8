//! What the steps of a command line make of a server's tables, without any I/O.
//!
//! A SPEC before the first `--add` or `--delete` says all that its table shall have: the first one empties it. A table
//! that no step touches goes back as it came, whatever its place may be.

use super::args::Step;
use slipway_host::inside::Side;
use slipway_portfwd::api::pesto::client::Remote;
use slipway_portfwd::api::pesto::wire;
use slipway_portfwd::rule::passt::{
    Capabilities, Context, Draft, Forwards, ParseError, Refusal, RuleSet, Verb, side_of,
};

/// Why a change is impossible. The texts are those of the original.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// `--clear` of a table that the server does not have.
    #[error("Unsupported pif name {0}")]
    Table(String),
    /// The server has no table for this option.
    #[error("Can't use -{0}, no {way} interface", way = if side_of(*.0) == Side::Host { "inbound" } else { "outbound" })]
    NoTable(char),
    /// The SPEC, or a rule that follows from it.
    #[error(transparent)]
    Spec(#[from] ParseError),
    /// The server has a rule that cannot be.
    #[error("the server has an impossible rule\n{0}")]
    Server(Refusal),
}

/// The tables, and what they become.
#[derive(Debug)]
pub struct Tables {
    tables: Vec<Remote>,
    ephemeral: (u16, u16),
    /// What is not quite as asked.
    pub warnings: Vec<String>,
}

impl Tables {
    /// The tables of a server.
    #[must_use]
    pub const fn new(tables: Vec<Remote>, ephemeral: (u16, u16)) -> Self {
        Self { tables, ephemeral, warnings: Vec::new() }
    }

    /// Does all steps.
    ///
    /// # Errors
    /// The first that is impossible.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), ChangeError> {
        let mut verb = None;
        let mut fresh = Vec::new();
        for step in steps {
            match step {
                Step::Add => verb = Some(Verb::Add),
                Step::Delete => verb = Some(Verb::Delete),
                Step::Clear(name) => {
                    let table = self.tables.iter_mut().find(|table| table.head.name == *name);
                    table.ok_or_else(|| ChangeError::Table(name.clone()))?.rules.clear();
                }
                Step::Spec(option, spec) => {
                    let side = side_of(*option);
                    let place = wire::place(side);
                    let table = self.tables.iter_mut().find(|table| table.head.place == place);
                    let table = table.ok_or(ChangeError::NoTable(*option))?;
                    if verb.is_none() && !fresh.contains(&side) {
                        table.rules.clear();
                        fresh.push(side);
                    }
                    let context = Context { can: table.head.can, ephemeral: self.ephemeral };
                    let verb = verb.unwrap_or(Verb::Add);
                    self.warnings.extend(apply(table, verb, *option, spec, &context)?);
                }
            }
        }
        Ok(())
    }

    /// As they are sent.
    #[must_use]
    pub fn to_send(&self) -> Vec<(u8, Vec<Draft>)> {
        self.tables.iter().map(|table| (table.head.place, table.rules.clone())).collect()
    }

    /// As they are shown.
    #[must_use]
    pub fn shown(&self) -> String {
        let tables = self.tables.iter().map(|table| {
            let rules: String = table.rules.iter().map(|rule| format!("    {rule}\n")).collect();
            format!("  {}\n{rules}", table.head.name)
        });
        tables.collect()
    }
}

fn apply(
    table: &mut Remote,
    verb: Verb,
    option: char,
    spec: &str,
    context: &Context,
) -> Result<Option<String>, ChangeError> {
    let side = side_of(option);
    let rules = table.rules.iter().map(|draft| {
        // What the server may have, it says when it is sent.
        let rule = draft.check(side, Capabilities::ALL);
        rule.map_err(|reason| ChangeError::Server(draft.refused(Verb::Add, reason)))
    });
    let mut forwards = Forwards::default();
    *forwards.of_mut(side) = RuleSet::in_force(rules.collect::<Result<Vec<_>, _>>()?);
    let warning = forwards.apply(verb, option, spec, context)?;
    table.rules = forwards.of(side).rules().iter().map(Draft::from).collect();
    Ok(warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_portfwd::api::pesto::wire::Head;

    fn table(place: u8, name: &str, can: Capabilities) -> Remote {
        Remote {
            head: Head { place, name: name.to_owned(), can, answers: false, count: 0 },
            rules: Vec::new(),
        }
    }

    fn tables() -> Tables {
        let all = Capabilities::ALL;
        Tables::new(vec![table(1, "HOST", all), table(3, "SPLICE", all)], (32_768, 60_999))
    }

    fn steps(line: &str) -> Vec<Step> {
        let words: Vec<_> = line.split(' ').chain(["sock"]).map(Into::into).collect();
        super::super::args::parse(&words).unwrap().steps
    }

    /// The tables after these command lines, one rule a line.
    fn after(lines: &[&str]) -> String {
        let mut tables = tables();
        for line in lines {
            tables.apply(&steps(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        tables.shown()
    }

    fn refused(lines: &[&str], last: &str) -> String {
        let mut tables = tables();
        for line in lines {
            tables.apply(&steps(line)).unwrap();
        }
        tables.apply(&steps(last)).unwrap_err().to_string()
    }

    #[test]
    fn steps_add_delete_clear_and_replace_as_the_originals_do() {
        let host = |rules: &[&str]| {
            let rules: String = rules.iter().map(|rule| format!("    {rule} \n")).collect();
            format!("  HOST\n{rules}  SPLICE\n")
        };
        let first = "-t 8080 -u 53";
        assert_eq!(after(&[first]), host(&["TCP [*]:8080  =>  8080", "UDP [*]:53  =>  53"]));
        assert_eq!(
            after(&[first, "-t 7070"]),
            host(&["TCP [*]:7070  =>  7070"]),
            "the table, not the protocol"
        );
        assert_eq!(
            after(&["-t 7071 -t 7072 -A -t 7073 -D -t 7072"]),
            host(&["TCP [*]:7071  =>  7071", "TCP [*]:7073  =>  7073"])
        );
        assert_eq!(after(&[first, "-u none"]), host(&[]));
        assert_eq!(after(&["-t none -t 9"]), host(&["TCP [*]:9  =>  9"]));
        assert_eq!(after(&[first, "-C HOST"]), host(&[]));
        assert_eq!(after(&["-C HOST -t 4 -C HOST -u 5"]), host(&["UDP [*]:5  =>  5"]));
        assert_eq!(after(&["-A", "-D"]), host(&[]));
        assert_eq!(
            after(&["-T 90", "-t 80", "-C SPLICE -A -t 5555,5557"]),
            host(&["TCP [*]:80  =>  80", "TCP [*]:5555  =>  5555", "TCP [*]:5557  =>  5557"])
        );
        assert_eq!(
            after(&["-A -T auto,~1-65530"]),
            "  HOST\n  SPLICE\n    TCP [*]%lo:65531-65535  =>  65531-65535  (best effort) (auto-scan)\n"
        );
    }

    #[test]
    fn what_is_impossible_is_said_in_the_originals_words() {
        let missing = "Couldn't find forwarding rule to delete: TCP [*]:1234  =>  1234 \n\
                       Unable to delete rule TCP [*]:1234  =>  1234 ";
        assert_eq!(refused(&[], "-D -t 1234"), missing);
        assert!(
            refused(&["-t 8080"], "-A -t 8080")
                .starts_with("Forwarding configuration conflict: TCP [*]:8080")
        );
        assert_eq!(refused(&[], "-C TAP"), "Unsupported pif name TAP");
        assert_eq!(refused(&[], "-C host"), "Unsupported pif name host");
        for line in ["-A -t none", "-D -t none"] {
            assert_eq!(refused(&["-t 9"], line), "-t none conflicts with previous options");
        }
        assert_eq!(refused(&[], "-A -T 1/2"), "Invalid port specifier '1/2'");
        let mut none = Tables::new(vec![table(9, "NEW", Capabilities::ALL)], (1, 2));
        for (line, text) in [
            ("-t 5", "Can't use -t, no inbound interface"),
            ("-A -U 5", "Can't use -U, no outbound interface"),
        ] {
            assert_eq!(none.apply(&steps(line)).unwrap_err().to_string(), text);
        }
        let old = Capabilities { scan: false, interface: false, ..Capabilities::ALL };
        let mut old = Tables::new(vec![table(1, "HOST", old), table(3, "SPLICE", old)], (1, 2));
        assert_eq!(
            old.apply(&steps("-A -t 5,auto")).unwrap_err().to_string(),
            "'auto' port forwarding is only allowed for pasta"
        );
        old.apply(&steps("-A -T 5")).unwrap();
        assert_eq!(
            old.warnings,
            ["SO_BINDTODEVICE unavailable, forwarding only 127.0.0.1 and ::1 for '-T 5'"]
        );
        assert_eq!(old.to_send()[1].1.len(), 2);
    }

    #[test]
    fn tables_of_places_that_we_do_not_know_go_back_as_they_came() {
        let mut new = table(9, "NEW", Capabilities::ALL);
        let mut tables = tables();
        tables.apply(&steps("-t 80")).unwrap();
        new.rules = tables.to_send().remove(0).1;
        tables.tables.push(new.clone());
        tables.apply(&steps("-A -t 81")).unwrap();
        assert_eq!(tables.to_send()[2], (9, new.rules));
        tables.apply(&steps("-C NEW")).unwrap();
        assert_eq!(tables.to_send()[2], (9, Vec::new()));
    }
}
