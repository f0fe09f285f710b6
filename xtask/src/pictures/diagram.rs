//! Draws boxes and arrows on a grid.
//!
//! ```text
//! # a comment
//! box NAME COLUMN ROW  first line | second line
//! round NAME COLUMN ROW  text
//! arrow FROM TO  label | its second line
//! line FROM TO  label
//! ```
//!
//! Columns and rows may have a fraction. An arrow is a straight line from border to border. If there is an arrow in each direction, the two lie side by side.

use super::escaped;
use anyhow::Context as _;
use anyhow::bail;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const COLUMN: f64 = 250.0;
const ROW: f64 = 125.0;
const WIDTH: f64 = 176.0;
const HEIGHT: f64 = 58.0;
const MARGIN: f64 = 14.0;
/// The distance between the two arrows of a pair.
const APART: f64 = 16.0;
const LINE: f64 = 15.0;

struct Shape {
    x: f64,
    y: f64,
    round: bool,
    lines: Vec<String>,
}

struct Arrow {
    from: String,
    to: String,
    head: bool,
    label: Vec<String>,
}

/// The picture as SVG. It is readable on a light page and on a dark page.
pub(super) fn draw(text: &str) -> anyhow::Result<String> {
    let (shapes, arrows) = parse(text)?;
    let right = shapes.values().map(|shape| shape.x).fold(0.0, f64::max);
    let bottom = shapes.values().map(|shape| shape.y).fold(0.0, f64::max);
    let (width, height) = (right + WIDTH / 2.0 + MARGIN, bottom + HEIGHT / 2.0 + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#ffffff\"/>\n\
         <marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto-start-reverse\">\
         <path d=\"M0 0L8 4L0 8z\" fill=\"#445\"/></marker>\n"
    );
    for arrow in &arrows {
        let shape = |name| shapes.get(name).with_context(|| format!("no box {name}"));
        let back = arrows
            .iter()
            .any(|other| other.from == arrow.to && other.to == arrow.from);
        draw_arrow(
            &mut svg,
            arrow,
            shape(&arrow.from)?,
            shape(&arrow.to)?,
            back,
        )?;
    }
    for shape in shapes.values() {
        draw_shape(&mut svg, shape)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn parse(text: &str) -> anyhow::Result<(BTreeMap<String, Shape>, Vec<Arrow>)> {
    let mut shapes = BTreeMap::new();
    let mut arrows = Vec::new();
    let lines = (1..).zip(text.lines());
    for (number, line) in
        lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let wrong = || format!("line {number}: {line}");
        let mut words = line.split_whitespace();
        let mut word = || words.next().with_context(wrong);
        let kind = word()?;
        match kind {
            "box" | "round" => {
                let name = word()?.to_owned();
                let (column, row): (f64, f64) = (word()?.parse()?, word()?.parse()?);
                let shape = Shape {
                    x: MARGIN + WIDTH / 2.0 + column * COLUMN,
                    y: MARGIN + HEIGHT / 2.0 + row * ROW,
                    round: kind == "round",
                    lines: parts(words),
                };
                shapes.insert(name, shape);
            }
            "arrow" | "line" => arrows.push(Arrow {
                from: word()?.to_owned(),
                to: word()?.to_owned(),
                head: kind == "arrow",
                label: parts(words),
            }),
            _ => bail!(
                "{}: the line must begin with box, round, arrow or line",
                wrong()
            ),
        }
    }
    Ok((shapes, arrows))
}

/// The rest of a line. The character `|` begins a new line of text.
fn parts<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let text = words.collect::<Vec<_>>().join(" ");
    let parts = text.split('|').map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

fn draw_shape(svg: &mut String, shape: &Shape) -> std::fmt::Result {
    let (left, top) = (shape.x - WIDTH / 2.0, shape.y - HEIGHT / 2.0);
    let (radius, fill) = if shape.round {
        (26, "#eef6ee")
    } else {
        (6, "#eef2fb")
    };
    writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"{radius}\" fill=\"{fill}\" stroke=\"#445\" stroke-width=\"1.2\"/>"
    )?;
    text_lines(svg, (shape.x, shape.y), &shape.lines, true)
}

fn draw_arrow(
    svg: &mut String,
    arrow: &Arrow,
    from: &Shape,
    to: &Shape,
    back: bool,
) -> std::fmt::Result {
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let length = dx.hypot(dy).max(1.0);
    // To the right of the direction of the arrow.
    let aside = if back { APART / 2.0 } else { 0.0 };
    let (sx, sy) = (-dy / length * aside, dx / length * aside);
    let start = border(from, (dx, dy), (sx, sy));
    let end = border(to, (-dx, -dy), (sx, sy));
    let head = if arrow.head {
        " marker-end=\"url(#head)\""
    } else {
        ""
    };
    writeln!(
        svg,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#445\" stroke-width=\"1.4\" fill=\"none\"{head}/>",
        start.0, start.1, end.0, end.1
    )?;
    if arrow.label.is_empty() {
        return Ok(());
    }
    let half = LINE / 2.0 * lines(&arrow.label);
    // The labels of a pair lie on the outer sides. The label of a horizontal line lies above the line.
    let out = if back { half + 4.0 } else { 0.0 };
    let above = if dy.abs() < 1.0 { half + 3.0 } else { 0.0 };
    let middle = (
        f64::midpoint(start.0, end.0) - dy / length * out * 3.0,
        f64::midpoint(start.1, end.1) + dx / length * out - above,
    );
    text_lines(svg, middle, &arrow.label, false)
}

/// The point where a line from the middle of a box in this direction, moved aside, leaves the box.
fn border(shape: &Shape, (dx, dy): (f64, f64), (sx, sy): (f64, f64)) -> (f64, f64) {
    let across = (WIDTH / 2.0) / dx.abs().max(1e-9);
    let down = (HEIGHT / 2.0) / dy.abs().max(1e-9);
    let share = across.min(down);
    (shape.x + dx * share + sx, shape.y + dy * share + sy)
}

/// Text around a point. The first line of a box is its name. Labels have a halo, because lines pass below them.
fn text_lines(
    svg: &mut String,
    (x, y): (f64, f64),
    text: &[String],
    title: bool,
) -> std::fmt::Result {
    let mut at = y - LINE / 2.0 * (lines(text) - 1.0) + 4.0;
    for (index, line) in text.iter().enumerate() {
        let look = match (title, index) {
            (true, 0) => " font-weight=\"bold\" fill=\"#112\"",
            (true, _) => " font-size=\"11.5\" fill=\"#334\"",
            (false, _) => {
                " font-size=\"11.5\" fill=\"#334\" stroke=\"#fff\" stroke-width=\"4\" paint-order=\"stroke\""
            }
        };
        writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{at:.1}\" text-anchor=\"middle\"{look}>{}</text>",
            escaped(line)
        )?;
        at += LINE;
    }
    Ok(())
}

fn lines(text: &[String]) -> f64 {
    u32::try_from(text.len()).map_or(1.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_joined_from_border_to_border() {
        let svg =
            draw("# two\nbox a 0 0  one | of two\nround b 1 0  <b>\narrow a b  goes\n").unwrap();
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("M190.0 43.0L264.0 43.0"), "{svg}");
        assert!(svg.contains(">of two</text>") && svg.contains(">&lt;b&gt;</text>"));
        assert!(svg.contains(">goes</text>"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, says) in [
            ("box a 0\n", "line 1"),
            ("box a 0 0  a\ncircle b 0 0\n", "line 2"),
            ("box a 0 0  a\narrow a b\n", "no box b"),
        ] {
            let error = format!("{:#}", draw(text).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
