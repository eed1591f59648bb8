//! A table as a picture: one line for each subject, down through the rows.
//!
//! The rows stand under each other, for their names are long; figures grow to the right, on a logarithmic scale, since
//! subjects differ by factors. Where all rows have one unit the figures themselves are shown; otherwise how many times
//! as good as ours each is.
//!
//! The picture is an SVG of plain shapes that asks the reader's programs whether their ground is light or dark
//! (`prefers-color-scheme`) and has no ground of its own. Each line has a colour and a mark, for those who cannot tell
//! colours apart.

use std::fmt::Write as _;

use crate::tool::{self, Done};

/// What is drawn.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the scale says.
    pub(crate) scale: String,
    pub(crate) rows: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

/// A subject's figures, one for each row; none where he did not do it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) figures: Vec<Option<f64>>,
}

/// A row as it was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) less_is_better: bool,
    /// One for each subject; ours is the first.
    pub(crate) figures: Vec<Option<f64>>,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 400.0;
const RIGHT: f64 = 830.0;
const TOP: f64 = 84.0;
const STEP: f64 = 26.0;

/// Colours that are told apart on white and on black, and what marks a point at (0, 0).
const STYLES: [(&str, &str); 5] = [
    ("#e4572e", "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"),
    ("#3b8fd6", "M-4.5 -4.5h9v9h-9z"),
    ("#2ca25f", "M0 -6L5.5 4.5h-11z"),
    ("#a06bd6", "M0 -6L6 0L0 6L-6 0z"),
    ("#c79a1b", "M-5.5 -4.5h11L0 6z"),
];

/// Text in the reader's colour; the grid is seen through.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.head{font-size:16px;font-weight:600}\
                     .grid{stroke:#80808055}.line{fill:none;stroke-width:2}\
                     @media(prefers-color-scheme:dark){text{fill:#e6edf3}}";

impl Chart {
    /// The chart of rows that were measured.
    pub(crate) fn of(title: &str, subjects: &[String], rows: &[Measured]) -> Self {
        let unit = rows.first().map_or("", |row| row.unit);
        let same = rows.iter().all(|row| row.unit == unit);
        let figure = |row: &Measured, index: usize| {
            let figure = row.figures.get(index).copied().flatten()?;
            if same {
                return Some(figure);
            }
            let ours = row.figures.first().copied().flatten()?;
            Some(if row.less_is_better { ours / figure } else { figure / ours })
        };
        let scale = match rows.first() {
            Some(row) if same && row.less_is_better => format!("{unit}, less is better"),
            Some(_) if same => unit.to_owned(),
            _ => "times as good as ours".to_owned(),
        };
        let lines = subjects.iter().enumerate().map(|(index, name)| Line {
            name: name.clone(),
            figures: rows
                .iter()
                .map(|row| figure(row, index).filter(|f| f.is_finite() && *f > 0.0))
                .collect(),
        });
        let named = |row: &Measured| row.name.clone();
        Self {
            title: title.to_owned(),
            scale,
            rows: rows.iter().map(named).collect(),
            lines: lines.collect(),
        }
    }

    /// Puts it below docs/performance, under this name; gives the page's words for it.
    pub(crate) fn put(&self, name: &str) -> Done<String> {
        let dir = tool::root().join("docs/performance");
        let path = dir.join(format!("{name}.svg"));
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, self.svg()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
        Ok(format!("![{}: {}](performance/{name}.svg)", self.title, self.scale))
    }

    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let ticks = ticks(self.lines.iter().flat_map(|line| &line.figures).flatten().copied());
        let bottom = self.row(self.rows.len());
        let height = bottom + 44.0;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\"><title>{0}</title><style>{STYLE}</style>\n\
             <text class=\"head\" x=\"10\" y=\"24\">{0}</text>\n",
            escaped(&self.title)
        );
        self.grid(&mut text, &ticks, bottom);
        let mut legend = 10.0;
        for (line, (colour, mark)) in self.lines.iter().zip(STYLES) {
            let name = escaped(&line.name);
            let _ = writeln!(
                text,
                "<path d=\"{mark}\" fill=\"{colour}\" transform=\"translate({} 47)\"/>\
                 <text x=\"{}\" y=\"52\">{name}</text>",
                legend + 6.0,
                legend + 18.0
            );
            legend += 46.0 + 8.0 * f64::from(u16::try_from(line.name.chars().count()).unwrap_or(99));
            self.line(&mut text, line, (colour, mark), &ticks);
        }
        text + "</svg>\n"
    }

    /// The height of a row's middle.
    fn row(&self, index: usize) -> f64 {
        TOP + STEP * f64::from(u16::try_from(index.min(self.rows.len())).unwrap_or(u16::MAX))
    }

    fn grid(&self, text: &mut String, ticks: &[f64], bottom: f64) {
        for tick in ticks {
            let x = across(*tick, ticks);
            let _ = writeln!(
                text,
                "<path class=\"grid\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                TOP - STEP / 2.0,
                bottom + 12.0,
                tick_label(*tick)
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, RIGHT),
            bottom + 34.0,
            escaped(&self.scale)
        );
        for (index, name) in self.rows.iter().enumerate() {
            let y = self.row(index);
            let _ = writeln!(
                text,
                "<path class=\"grid\" d=\"M{LEFT} {y}H{RIGHT}\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 12.0,
                y + 4.5,
                escaped(name)
            );
        }
    }

    fn line(&self, text: &mut String, line: &Line, (colour, mark): (&str, &str), ticks: &[f64]) {
        let places = line.figures.iter().enumerate();
        let places: Vec<Option<(f64, f64)>> = places
            .map(|(index, figure)| figure.map(|figure| (across(figure, ticks), self.row(index))))
            .collect();
        let mut path = String::new();
        let mut pen = 'M';
        for place in &places {
            // A row that was not done interrupts the line.
            let Some((x, y)) = place else {
                pen = 'M';
                continue;
            };
            let _ = write!(path, "{pen}{x:.1} {y:.1}");
            pen = 'L';
        }
        let _ = writeln!(text, "<path class=\"line\" stroke=\"{colour}\" d=\"{path}\"/>");
        for (x, y) in places.into_iter().flatten() {
            let _ = writeln!(
                text,
                "<path d=\"{mark}\" fill=\"{colour}\" transform=\"translate({x:.1} {y:.1})\"/>"
            );
        }
    }
}

/// The numbers 1, 2 and 5 times powers of ten from just below the smallest figure to just above the largest.
fn ticks(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let range = figures.map(|figure| (figure, figure)).reduce(|(l, h), (f, _)| (l.min(f), h.max(f)));
    let (low, high) = range.unwrap_or((1.0, 1.0));
    let all: Vec<f64> =
        (-6..9).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect();
    let first = all.iter().rposition(|tick| *tick <= low * 0.97).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * 1.03).unwrap_or(all.len() - 1);
    all.get(first..=last.max(first + 1)).map(<[f64]>::to_vec).unwrap_or_default()
}

fn tick_label(tick: f64) -> String {
    if tick >= 1000.0 {
        format!("{:.0} k", tick / 1000.0)
    } else if tick >= 1.0 {
        format!("{tick:.0}")
    } else {
        number(tick).trim_end_matches('0').to_owned()
    }
}

/// Where a figure stands between the first and the last tick.
fn across(figure: f64, ticks: &[f64]) -> f64 {
    let (Some(low), Some(high)) = (ticks.first(), ticks.last()) else { return LEFT };
    LEFT + (RIGHT - LEFT) * (figure / low).ln() / (high / low).ln()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A figure with as many digits as say something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{:.1} k", value / 1000.0),
        middle if middle >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        tiny if tiny > 0.0 && tiny < 0.1 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, unit: &'static str, less_is_better: bool, figures: &[f64]) -> Measured {
        let figures = figures.iter().map(|figure| Some(*figure).filter(|f| *f >= 0.0)).collect();
        Measured { name: name.to_owned(), unit, less_is_better, figures }
    }

    fn subjects() -> Vec<String> {
        ["slipway", "a < b"].map(str::to_owned).to_vec()
    }

    #[test]
    fn figures_of_one_unit_are_shown_as_they_are() {
        let rows = [row("up", "Gbit/s", false, &[20.0, 4.0]), row("down", "Gbit/s", false, &[30.0, -1.0])];
        let chart = Chart::of("TCP", &subjects(), &rows);
        assert_eq!(chart.scale, "Gbit/s");
        let figures: Vec<_> = chart.lines.iter().map(|line| line.figures.clone()).collect();
        assert_eq!(figures, [vec![Some(20.0), Some(30.0)], vec![Some(4.0), None]]);
    }

    #[test]
    fn of_several_units_the_better_is_to_the_right() {
        let rows = [
            row("rate", "1/s", false, &[20.0, 10.0]),
            row("start", "ms", true, &[2.0, 4.0]),
            row("lost", "queries", true, &[0.0, 0.0]),
        ];
        let chart = Chart::of("mixed", &subjects(), &rows);
        assert_eq!(chart.scale, "times as good as ours");
        let figures: Vec<_> = chart.lines.iter().map(|line| line.figures.clone()).collect();
        assert_eq!(figures, [vec![Some(1.0), Some(1.0), None], vec![Some(0.5), Some(0.5), None]]);
    }

    #[test]
    fn the_picture_has_a_line_for_each_subject_and_both_grounds() {
        let rows = [row("up", "s", true, &[0.5, 4.0]), row("down", "s", true, &[1.0, 60.0])];
        let svg = Chart::of("T & U", &subjects(), &rows).svg();
        assert_eq!(svg.matches("class=\"line\"").count(), 2, "{svg}");
        assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("a &lt; b"), "{svg}");
        assert!(svg.contains("<title>T &amp; U</title>") && svg.contains(">s, less is better<"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn ticks_embrace_the_figures() {
        assert_eq!(ticks([3.0, 40.0].into_iter()), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(ticks([1.0, 1.0].into_iter()), [0.5, 1.0, 2.0]);
        assert!(!ticks(std::iter::empty()).is_empty());
        assert_eq!([0.05, 0.5, 1.0, 20_000.0].map(tick_label), ["0.05", "0.5", "1", "20 k"]);
    }
}
