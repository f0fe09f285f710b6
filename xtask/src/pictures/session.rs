//! Draws a recorded terminal session as SVG. The recording is an asciicast of version 2: a line of JSON for the header, and a line for each output.

use super::escaped;
use anyhow::Context as _;
use serde_json::Value;
use std::fmt::Write as _;

const LINE: usize = 17;
const CHARACTER: usize = 8;
const MARGIN: usize = 14;
/// The bar with the title.
const BAR: usize = 30;
const TAB: usize = 8;
const PROMPT: &str = "(gdb) ";
/// The longest pause between two lines of the animation, in seconds. Longer pauses of the recording are cut.
const LONGEST_PAUSE: f64 = 1.2;
/// The shortest pause before a command of the animation, in seconds.
const TO_READ: f64 = 0.8;

/// The whole session, one line below the other. In a viewer that plays animations, each line appears at its time in the recording.
pub(super) fn draw(recording: &str) -> anyhow::Result<String> {
    let mut lines = recording.lines();
    let header: Value = serde_json::from_str(lines.next().context("no header")?)?;
    let columns = header["width"]
        .as_u64()
        .context("the header has no width")?;
    let title = header["title"].as_str().unwrap_or("gdb");
    let shown = timed_lines(lines)?;
    let width = usize::try_from(columns)? * CHARACTER + 2 * MARGIN;
    let height = BAR + shown.len() * LINE + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\" xml:space=\"preserve\">\n\
         <style>text{{white-space:pre}}text.l{{fill:#d8dee9;animation:show .05s both}}tspan.p{{fill:#8fbc8f}}tspan.c{{fill:#ffffff;font-weight:bold}}\
         @keyframes show{{from{{opacity:0}}}}@media(prefers-reduced-motion:reduce){{text.l{{animation:none}}}}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#1d2430\"/>\n\
         <text x=\"{}\" y=\"20\" text-anchor=\"middle\" fill=\"#8892a6\" font-size=\"12\">{}</text>\n",
        width / 2,
        escaped(title)
    );
    let (mut clock, mut before) = (0.0, 0.0);
    for (index, (time, line)) in shown.iter().enumerate() {
        let pause = f64::clamp(time - before, 0.0, LONGEST_PAUSE);
        clock += match line.starts_with(PROMPT) {
            true => pause.max(TO_READ),
            false => pause,
        };
        before = *time;
        let y = BAR + LINE * index + 14;
        let text = match line.strip_prefix(PROMPT) {
            Some(command) => format!(
                "<tspan class=\"p\">{PROMPT}</tspan><tspan class=\"c\">{}</tspan>",
                escaped(command)
            ),
            None => escaped(line),
        };
        writeln!(
            svg,
            "<text class=\"l\" x=\"{MARGIN}\" y=\"{y}\" style=\"animation-delay:{clock:.2}s\">{text}</text>"
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Each line of the terminal and the time of its first character.
fn timed_lines<'a>(events: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<(f64, String)>> {
    let mut lines: Vec<(f64, String)> = Vec::new();
    let mut open = false;
    for event in events {
        let event: Value = serde_json::from_str(event)?;
        let time = event[0].as_f64().context("an event without a time")?;
        let text = event[2].as_str().context("an event without text")?;
        for part in text.split_inclusive('\n') {
            if !open {
                lines.push((time, String::new()));
            }
            let (_, line) = lines.last_mut().expect("one was begun");
            for character in part.trim_end_matches(['\r', '\n']).chars() {
                match character {
                    '\t' => line.extend(std::iter::repeat_n(' ', TAB - line.len() % TAB)),
                    other => line.push(other),
                }
            }
            open = !part.ends_with('\n');
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_when_they_came_and_a_long_pause_is_cut() {
        let recording = "{\"version\":2,\"width\":80,\"height\":24,\"title\":\"a <b>\"}\n\
             [0.5,\"o\",\"(gdb) \"]\n[0.6,\"o\",\"bt\\r\\n\"]\n[90.0,\"o\",\"#0  f (a=<c>)\\r\\nnext\\r\\n\"]\n";
        let svg = draw(recording).unwrap();
        assert_eq!(svg.matches("<text class=\"l\"").count(), 3);
        assert!(svg.contains("0.80s\">"), "{svg}");
        assert!(svg.contains("2.00s\">#0  f (a=&lt;c&gt;)</text>"), "{svg}");
        assert!(svg.contains("<tspan class=\"c\">bt</tspan>") && svg.contains("a &lt;b&gt;"));
        assert!(draw("").is_err() && draw("{}\n").is_err());
    }
}
