//! Line charts as SVG text.

use plotters::{
    coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    prelude::*,
    style::RGBColor,
};
use std::{fmt::Write, ops::Range};

/// Size of a chart in pixels; it is scaled to the page.
const SIZE: (u32, u32) = (920, 320);
/// Colours that can be told apart, also without colour vision (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// In the legend, as HTML.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// How the y axis is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// From zero on, in whole steps.
    Counts,
    /// In powers of ten.
    Decades,
}

/// Names and formats of the axes.
pub struct Axes<'a> {
    /// Beneath the x axis.
    pub x_name: &'a str,
    /// Beside the y axis.
    pub y_name: &'a str,
    /// How x values are written.
    pub x_label: &'a dyn Fn(f64) -> String,
    /// How y values are written.
    pub y_label: &'a dyn Fn(f64) -> String,
    /// How the y axis is divided.
    pub scale: Scale,
    /// From one number on the x axis to the next, by the largest x.
    pub x_step: fn(f64) -> f64,
}

/// A step of 1, 2 or 5 times a power of ten, whole, that divides `most` into at most `marks` parts.
pub fn whole_step(most: f64, marks: usize) -> f64 {
    let wanted = (most / marks as f64).max(1.0);
    let decade = 10_f64.powf(wanted.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * decade)
        .find(|step| *step >= wanted * (1.0 - 1e-9))
        .unwrap_or(wanted)
}

/// An axis with its numbers where we say.
struct Marked {
    range: Range<f64>,
    marks: Vec<f64>,
}

impl Ranged for Marked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// The y axis as it is drawn: decades as their logarithms.
struct Height {
    from: f64,
    to: f64,
    marks: Vec<f64>,
    scale: Scale,
}

impl Height {
    fn of(series: &[Series], scale: Scale) -> Self {
        let values = || series.iter().flat_map(|line| line.points.iter()).map(|(_, y)| *y);
        let most = values().fold(0.0, f64::max);
        match scale {
            Scale::Counts => {
                let to = (most * 1.15).max(1.0);
                let step = whole_step(to, 8);
                let marks = (0..).map(|mark| f64::from(mark) * step).take_while(|mark| *mark <= to).collect();
                Self { from: 0.0, to, marks, scale }
            }
            Scale::Decades => {
                let least = values().filter(|y| *y > 0.0).fold(f64::INFINITY, f64::min);
                // Whole decades, so that there are at least two numbers on the axis.
                let (from, to) = if least.is_finite() {
                    (least.log10().floor(), (most.log10() + 1e-9).floor() + 1.0)
                } else {
                    (0.0, 1.0)
                };
                let between: &[f64] = if to - from <= 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let mut marks = Vec::new();
                for decade in from as i32..=to as i32 {
                    marks.extend(between.iter().map(|digit| f64::from(decade) + digit.log10()));
                }
                marks.retain(|mark| *mark <= to + 1e-9);
                Self { from, to, marks, scale }
            }
        }
    }

    /// Where a value is drawn.
    fn at(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Counts => value,
            Scale::Decades => value.max(1e-9).log10().max(self.from),
        }
    }

    /// The value that is drawn there.
    fn value(&self, at: f64) -> f64 {
        match self.scale {
            Scale::Counts => at,
            // Rounded to three digits, or a power of ten would be a little less than one.
            Scale::Decades => {
                let value = 10_f64.powf(at);
                let digit = 10_f64.powf(at.floor() - 2.0);
                (value / digit).round() * digit
            }
        }
    }
}

/// Which colour is which line, above the chart and not in it, where it would lie on the lines.
fn legend(series: &[Series]) -> String {
    let mut out = String::from("<p class=\"legend\">");
    for (line, RGBColor(red, green, blue)) in series.iter().zip(COLOURS.iter().cycle()) {
        let _ =
            write!(out, "<span><i style=\"background:rgb({red},{green},{blue})\"></i>{}</span> ", line.name);
    }
    out.push_str("</p>");
    out
}

/// Draws the series, with a legend if there are several; empty text if there is nothing to draw.
pub fn draw(series: &[Series], axes: &Axes<'_>) -> String {
    let x_max = series.iter().flat_map(|line| line.points.iter()).map(|(x, _)| *x).fold(0.0, f64::max);
    if x_max <= 0.0 {
        return String::new();
    }
    let mut svg = String::new();
    // The only thing that can fail is writing to memory, which does not.
    let svg = draw_in(&mut svg, series, axes, x_max).map(|()| svg).unwrap_or_default();
    let legend = if series.len() > 1 { legend(series) } else { String::new() };
    format!("{legend}<div class=\"chart\">{svg}</div>")
}

fn draw_in(
    svg: &mut String,
    series: &[Series],
    axes: &Axes<'_>,
    x_max: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let height = Height::of(series, axes.scale);
    let x_step = (axes.x_step)(x_max);
    let x_marks: Vec<f64> =
        (0..).map(|mark| f64::from(mark) * x_step).take_while(|mark| *mark <= x_max + 1e-9).collect();
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(
            Marked { range: 0.0..x_max, marks: x_marks },
            Marked { range: height.from..height.to, marks: height.marks.clone() },
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(120, 120, 120))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .x_desc(axes.x_name)
        .y_desc(axes.y_name)
        .x_label_formatter(&|x| (axes.x_label)(*x))
        .y_label_formatter(&|y| (axes.y_label)(height.value(*y)))
        .draw()?;
    for (line, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let points: Vec<(f64, f64)> = line.points.iter().map(|(x, y)| (*x, height.at(*y))).collect();
        match points[..] {
            // A line of one point would not be seen.
            [(x, y)] => chart.draw_series(LineSeries::new([(x, y), (x, y)], style).point_size(3))?,
            _ => chart.draw_series(LineSeries::new(points, style))?,
        };
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{show_count, show_nanos};

    /// The numbers beside the y axis of a chart with these values, from the lowest on.
    fn labels(values: &[f64], scale: Scale) -> Vec<String> {
        let points = values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
        let height = Height::of(&[Series { name: String::new(), points }], scale);
        let show = |y: f64| match scale {
            Scale::Counts => show_count(y.round() as u64),
            Scale::Decades => show_nanos(y as u64),
        };
        height.marks.iter().map(|mark| show(height.value(*mark))).collect()
    }

    /// Danger: an axis with the same number twice, or with one alone, cannot be read.
    #[test]
    fn no_number_stands_on_an_axis_twice() {
        for most in [0.0, 1.0, 2.0, 3.0, 7.0, 64.0, 999.0, 1_000.0, 50_000.0, 123_456.0] {
            let labels = labels(&[0.0, most], Scale::Counts);
            let mut once = labels.clone();
            once.dedup();
            assert_eq!(labels, once, "{most}");
            assert!((2..=10).contains(&labels.len()), "{most}: {labels:?}");
        }
        for (least, most) in [(1e6, 1e6), (2e5, 9e5), (1.0, 5e9), (999.9, 1e9), (3e6, 4e6)] {
            let labels = labels(&[least, most], Scale::Decades);
            let mut once = labels.clone();
            once.dedup();
            assert_eq!(labels, once, "{least} {most}");
            assert!((2..=12).contains(&labels.len()), "{least} {most}: {labels:?}");
        }
        assert_eq!(labels(&[2e5, 9e5], Scale::Decades), ["100 us", "200 us", "500 us", "1.00 ms"]);
        assert_eq!(
            [0.4, 1.0, 11.0, 30.0, 7_200.0].map(|most| whole_step(most, 10)),
            [1.0, 1.0, 2.0, 5.0, 1_000.0]
        );
    }
}
