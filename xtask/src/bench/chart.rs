//! Draws the ratios of a run as a bar chart.

use anyhow::Context as _;
use plotters::prelude::*;

/// A row of the chart: the name of the measure, and how many times better than the baseline Trapgate's server is.
pub(super) type Ratio = (String, f64);

const WIDTH: u32 = 900;
const ROW: u32 = 22;
const NAMES: f64 = 330.0;
const MARGIN: f64 = 40.0;

/// Draws one bar for each ratio on a logarithmic scale. The bar goes to the right of 1 where Trapgate is better. Returns `None` if there is no ratio.
pub(super) fn draw(baseline: &str, ratios: &[Ratio]) -> anyhow::Result<Option<String>> {
    let ratios: Vec<&Ratio> = ratios
        .iter()
        .filter(|(_, ratio)| *ratio > 0.0 && ratio.is_finite())
        .collect();
    if ratios.is_empty() {
        return Ok(None);
    }
    let rows = u32::try_from(ratios.len()).context("too many rows")?;
    let height = rows * ROW + 60;
    let widest = ratios
        .iter()
        .map(|(_, ratio)| ratio.log2().abs())
        .fold(1.0, f64::max);
    let middle = NAMES + (f64::from(WIDTH) - NAMES - MARGIN) / 2.0;
    let scale = (f64::from(WIDTH) - NAMES - 2.0 * MARGIN) / 2.0 / widest;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!("times better than {baseline} (logarithmic; the line is 1)");
        area.draw(&Text::new(title, (12, 14), ("sans-serif", 15)))?;
        let top = 40;
        for (row, (name, ratio)) in (0..).zip(&ratios) {
            let y = top + row * i32::try_from(ROW)?;
            let end = pixel(middle + ratio.log2() * scale);
            let zero = pixel(middle);
            let colour = if *ratio >= 1.0 {
                RGBColor(70, 130, 90)
            } else {
                RGBColor(190, 80, 70)
            };
            let corners = [(zero.min(end), y), (zero.max(end), y + 14)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            area.draw(&Text::new(name.clone(), (12, y + 1), ("sans-serif", 13)))?;
            let at = if *ratio >= 1.0 { end + 4 } else { zero + 4 };
            area.draw(&Text::new(
                format!("{ratio:.2}"),
                (at, y + 1),
                ("sans-serif", 12),
            ))?;
        }
        let bottom = top + i32::try_from(rows * ROW)?;
        let line = [(pixel(middle), top - 6), (pixel(middle), bottom)];
        area.draw(&PathElement::new(line, BLACK.stroke_width(1)))?;
        area.present()?;
    }
    Ok(Some(svg))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a place within the picture"
)]
fn pixel(place: f64) -> i32 {
    place.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ratio_has_a_bar_on_its_side_of_the_line() {
        let ratios = [
            ("g".to_owned(), 4.0),
            ("s".to_owned(), 0.5),
            ("never".to_owned(), f64::NAN),
        ];
        let svg = draw("qemu", &ratios).unwrap().expect("a chart");
        assert!(
            svg.contains("4.00") && svg.contains("0.50") && !svg.contains("never"),
            "{svg}"
        );
        assert_eq!(svg.matches("#46825A").count(), 1, "{svg}");
        assert_eq!(svg.matches("#BE5046").count(), 1, "{svg}");
        assert_eq!(draw("qemu", &[]).unwrap(), None);
    }
}
