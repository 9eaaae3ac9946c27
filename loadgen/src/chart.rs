//! Line charts as SVG text.

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
    style::RGBColor,
};

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
    /// In the legend.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// A corner of a chart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Legend {
    /// Above the lines' begin.
    UpperLeft,
    /// Beneath the lines' end.
    LowerRight,
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
    /// Decades on the y axis.
    pub y_log: bool,
    /// Numbers on the x axis, about.
    pub x_labels: usize,
    /// Where the lines leave room for the legend.
    pub legend: Legend,
}

/// Draws the series; empty text if there is nothing to draw.
pub fn draw(series: &[Series], axes: &Axes<'_>) -> String {
    let points = || series.iter().flat_map(|line| line.points.iter());
    let x_max = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let y_max = points().map(|(_, y)| *y).fold(0.0, f64::max);
    if points().next().is_none() || x_max <= 0.0 {
        return String::new();
    }
    let mut svg = String::new();
    let drawn = if axes.y_log {
        let y_min = points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(f64::INFINITY, f64::min);
        // Whole decades, so that there are at least two numbers on the axis.
        let decade = |y: f64, up: f64| 10_f64.powf((y.log10() + up).floor());
        let bounds = if y_min.is_finite() { (decade(y_min, 0.0), decade(y_max, 1.0)) } else { (1.0, 10.0) };
        draw_in(&mut svg, series, axes, x_max, (bounds.0..bounds.1).log_scale())
    } else {
        draw_in(&mut svg, series, axes, x_max, 0.0..(y_max * 1.15).max(1.0))
    };
    // The only thing that can fail is writing to memory, which does not.
    drawn.map(|()| svg).unwrap_or_default()
}

fn draw_in<Y>(
    svg: &mut String,
    series: &[Series],
    axes: &Axes<'_>,
    x_max: f64,
    y_range: Y,
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..x_max, y_range)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(120, 120, 120))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .x_desc(axes.x_name)
        .y_desc(axes.y_name)
        .x_labels(axes.x_labels)
        .y_labels(8)
        .x_label_formatter(&|x| (axes.x_label)(*x))
        .y_label_formatter(&|y| (axes.y_label)(*y))
        .draw()?;
    for (line, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    if series.len() > 1 {
        chart
            .configure_series_labels()
            .position(match axes.legend {
                Legend::UpperLeft => SeriesLabelPosition::UpperLeft,
                Legend::LowerRight => SeriesLabelPosition::LowerRight,
            })
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
    }
    area.present()?;
    Ok(())
}
