//! Two small charts as inline SVG: lines along training, and intervals by stage.
//!
//! Colours are the light theme's; the style sheet finds them by attribute and replaces them in the dark theme, and it
//! makes the lines of [`Ink::CONTROL_LINE`] dashed. Charts are drawn narrow so that their text is legible on a phone.

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::model::{Arm, Estimate};

/// Pixels of the drawing per unit of its size on a phone: the backend's coordinates are whole numbers.
const SCALE: i32 = 4;
const WIDTH: i32 = 360;
const LINES_HEIGHT: i32 = 220;
const FONT: i32 = 12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// The colours, blue and vermilion of the Okabe–Ito palette; `style.css` repeats them.
struct Ink;

impl Ink {
    const ORGANISM: RGBColor = RGBColor(0x00, 0x72, 0xB2);
    const CONTROL: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
    const CONTROL_LINE: RGBColor = RGBColor(0xD5, 0x5E, 0x01);
    const TEXT: RGBColor = RGBColor(0x33, 0x33, 0x33);
    const AXIS: RGBColor = RGBColor(0x99, 0x99, 0x98);
    const GRID: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);
    const SURFACE: RGBColor = RGBColor(0xFE, 0xFE, 0xFE);

    fn mark(arm: Arm) -> RGBColor {
        match arm {
            Arm::Organism => Self::ORGANISM,
            Arm::Control => Self::CONTROL,
        }
    }

    fn line(arm: Arm) -> RGBColor {
        match arm {
            Arm::Organism => Self::ORGANISM,
            Arm::Control => Self::CONTROL_LINE,
        }
    }
}

/// A line of the line chart: solid with circles for the organism, dashed with squares for the control.
pub(super) struct Line {
    /// Which model.
    pub(super) arm: Arm,
    /// Thick with filled marks, or thin with hollow ones.
    pub(super) is_strong: bool,
    /// Whether some of the points get a mark.
    pub(super) has_marks: bool,
    /// The points from left to right.
    pub(super) points: Vec<(f64, f64)>,
    /// Intervals of points, as place, lower and upper end; may be empty.
    pub(super) bars: Vec<(f64, f64, f64)>,
}

/// The axes of the line chart.
pub(super) struct Axes {
    /// What the horizontal axis counts.
    pub(super) x_label: &'static str,
    /// Its range.
    pub(super) x: Range<f64>,
    /// Range of the vertical axis.
    pub(super) y: Range<f64>,
    /// Whether the vertical axis is a share, shown in per cent.
    pub(super) is_share: bool,
}

/// A stage of the interval chart.
pub(super) struct Group {
    /// Its heading.
    pub(super) label: String,
    /// Its intervals from top to bottom.
    pub(super) intervals: Vec<Interval>,
}

/// A share with its interval.
pub(super) struct Interval {
    /// Which model.
    pub(super) arm: Arm,
    /// The value and the interval, from 0 to 1.
    pub(super) estimate: Estimate,
    /// Values of the single seeds, drawn as dots when there are several.
    pub(super) seeds: Vec<f64>,
    /// The value in words, right of the interval.
    pub(super) text: String,
}

/// Draws lines over a common horizontal axis.
pub(super) fn lines(lines: &[Line], axes: &Axes) -> String {
    svg(LINES_HEIGHT, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_top(8 * SCALE)
            .margin_right(10 * SCALE)
            .x_label_area_size(38 * SCALE)
            .y_label_area_size(44 * SCALE)
            .build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
        let share = |y: &f64| format!("{:.0}%", 100.0 * y);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::GRID.stroke_width(SCALE as u32))
            .axis_style(Ink::AXIS.stroke_width(SCALE as u32))
            .label_style(text_style())
            .set_all_tick_mark_size(5 * SCALE)
            .x_desc(axes.x_label)
            .x_labels(5)
            .y_labels(6)
            .x_label_formatter(&|x| tick(*x))
            .y_label_formatter(if axes.is_share { &share } else { &|y| tick(*y) })
            .draw()?;
        for line in lines {
            let width = if line.is_strong { 9 } else { 5 };
            chart.draw_series(LineSeries::new(
                line.points.iter().copied(),
                Ink::line(line.arm).stroke_width(width),
            ))?;
            for &(x, low, high) in &line.bars {
                let bar = PathElement::new(vec![(x, low), (x, high)], Ink::mark(line.arm).stroke_width(5));
                chart.draw_series(std::iter::once(bar))?;
            }
            let every = if line.has_marks { line.points.len().div_ceil(10).max(1) } else { usize::MAX };
            for point in line.points.iter().step_by(every).filter(|_| line.has_marks) {
                mark(&chart, *point, line.arm, line.is_strong)?;
            }
        }
        Ok(())
    })
}

/// Height of a heading, of an interval, and of the room below a group.
const HEADING: i32 = 18;
const INTERVAL: i32 = 17;
const GAP: i32 = 8;

/// Draws shares with their intervals, one group below the other, on an axis from 0% to 100%.
pub(super) fn intervals(groups: &[Group]) -> String {
    let height: i32 =
        groups.iter().map(|group| HEADING + INTERVAL * group.intervals.len() as i32 + GAP).sum();
    svg(height + 30, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_left(10 * SCALE)
            .margin_right(56 * SCALE)
            .margin_top(2 * SCALE)
            .x_label_area_size(26 * SCALE)
            .build_cartesian_2d(0.0..1.0, f64::from(height)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::GRID.stroke_width(SCALE as u32))
            .axis_style(Ink::AXIS.stroke_width(SCALE as u32))
            .label_style(text_style())
            .set_all_tick_mark_size(5 * SCALE)
            .x_labels(6)
            .y_labels(0)
            .x_label_formatter(&|x| format!("{:.0}%", 100.0 * x))
            .draw()?;
        let mut top = 0;
        for group in groups {
            label(root, &group.label, chart.backend_coord(&(0.0, f64::from(top + HEADING / 2))), true)?;
            top += HEADING;
            for interval in &group.intervals {
                let y = f64::from(top) + f64::from(INTERVAL) / 2.0;
                draw_interval(&chart, interval, y)?;
                let (right, y) = chart.backend_coord(&(1.0, y));
                label(root, &interval.text, (right + 10 * SCALE, y), false)?;
                top += INTERVAL;
            }
            top += GAP;
        }
        Ok(())
    })
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn draw_interval(chart: &Chart<'_, '_>, interval: &Interval, y: f64) -> Drawn {
    let Estimate { value, low, high, .. } = interval.estimate;
    let style = Ink::mark(interval.arm).stroke_width(6);
    let area = chart.plotting_area();
    area.draw(&PathElement::new(vec![(low, y), (high, y)], style))?;
    for end in [low, high] {
        area.draw(&PathElement::new(vec![(end, y - 4.0), (end, y + 4.0)], style))?;
    }
    if interval.seeds.len() > 1 {
        for seed in &interval.seeds {
            area.draw(&Circle::new((*seed, y), 8, Ink::mark(interval.arm).filled()))?;
        }
    }
    mark(chart, (value, y), interval.arm, interval.arm == Arm::Organism)
}

/// A circle for the organism, a square for the control.
fn mark(chart: &Chart<'_, '_>, at: (f64, f64), arm: Arm, is_filled: bool) -> Drawn {
    let ink = Ink::mark(arm);
    let area = chart.plotting_area();
    let inside = if is_filled { ink } else { Ink::SURFACE };
    match arm {
        Arm::Organism => {
            area.draw(&Circle::new(at, 14, inside.filled()))?;
            area.draw(&Circle::new(at, 14, ink.stroke_width(5)))?;
        }
        Arm::Control => {
            let corners = vec![(-12, -12), (12, -12), (12, 12), (-12, 12), (-12, -14)];
            area.draw(&(EmptyElement::at(at) + Polygon::new(corners.clone(), inside.filled())))?;
            area.draw(&(EmptyElement::at(at) + PathElement::new(corners, ink.stroke_width(5))))?;
        }
    }
    Ok(())
}

fn label(root: &Area<'_>, text: &str, at: (i32, i32), is_heading: bool) -> Drawn {
    let style = text_style().pos(Pos::new(HPos::Left, VPos::Center));
    let style =
        if is_heading { TextStyle { font: style.font.style(FontStyle::Bold), ..style } } else { style };
    root.draw_text(text, &style, at)?;
    Ok(())
}

/// A number of an axis, without the rounding errors of its making.
fn tick(value: f64) -> String {
    let rounded = (1000.0 * value).round() / 1000.0;
    format!("{rounded}").replace('-', "−")
}

fn text_style() -> TextStyle<'static> {
    // The backend divides font sizes by 1.24.
    ("sans-serif", f64::from(FONT * SCALE) * 1.24).into_font().color(&Ink::TEXT)
}

/// An SVG element to stand inside HTML, as wide as its place.
fn svg(height: i32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let size = ((WIDTH * SCALE) as u32, (height * SCALE) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&root).and_then(|()| Ok(root.present()?)).expect("drawing into a string cannot fail");
    }
    // HTML needs no name space, and the report must name no address.
    svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Axes {
        Axes { x_label: "step", x: 0.0..10.0, y: -4.0..0.0, is_share: false }
    }

    #[test]
    fn lines_keep_their_inks_and_text() {
        let line = |arm| Line {
            arm,
            is_strong: true,
            has_marks: true,
            points: vec![(0.0, -3.0), (10.0, -1.0)],
            bars: vec![(10.0, -2.0, 0.0)],
        };
        let svg = lines(&[line(Arm::Organism), line(Arm::Control)], &axes());
        for part in ["<svg", "stroke=\"#0072B2\"", "stroke=\"#D55E01\"", "step", "−4", "</svg>"] {
            assert!(svg.contains(part), "{part} is missing");
        }
        assert!(!svg.contains("://"));
    }

    #[test]
    fn labels_are_escaped() {
        let estimate = Estimate { value: 0.5, low: 0.4, high: 0.6, n: 10 };
        let interval = Interval { arm: Arm::Control, estimate, seeds: vec![], text: "50.0%".to_owned() };
        let svg = intervals(&[Group { label: "<script>&".to_owned(), intervals: vec![interval] }]);
        assert!(!svg.contains("<script"));
        assert!(svg.contains("&lt;script&gt;&amp;"));
    }

    #[test]
    fn chart_without_lines_is_drawn() {
        assert!(lines(&[], &axes()).ends_with("</svg>\n"));
    }
}
