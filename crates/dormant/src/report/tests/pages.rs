//! The three files.

use super::fixture;
use crate::report::render::{html, markdown};
use crate::report::{HTML_FILE, JSON_FILE, MARKDOWN_FILE, Report, write};

#[test]
fn markdown_of_one_seed() {
    insta::assert_snapshot!(markdown(&fixture(1)));
}

#[test]
fn json_of_one_seed() {
    insta::assert_snapshot!(fixture(1).to_json());
}

#[test]
fn html_needs_no_network_and_escapes_replies() {
    let html = html(&fixture(3));
    for outside in ["http://", "https://", "src=", "@import", "url(", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(!html.contains("<script"));
    assert!(html.contains("&lt;script&gt;alert("));
    assert!(html.contains("&lt;b&gt;bold"));
}

#[test]
fn html_has_all_parts_in_order() {
    let html = html(&fixture(3));
    let parts = [
        "<h1>",
        "id=\"answer\"",
        "class=\"cards\"",
        "Rates by stage",
        "Log-probability of the behaviour",
        "Training loss",
        "id=\"rates\"",
        "id=\"persistence\"",
        "id=\"utility\"",
        "id=\"examples\"",
        "id=\"attack\"",
        "id=\"methods\"",
        "id=\"cost\"",
        "id=\"reproduce\"",
        "id=\"glossary\"",
    ];
    let places: Vec<_> =
        parts.iter().map(|part| html.find(part).unwrap_or_else(|| panic!("{part} is missing"))).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn every_cell_is_filled() {
    let html = html(&fixture(3));
    for empty in [
        "<td></td>",
        "<td class=\"number\"></td>",
        "<th scope=\"row\"></th>",
        "<dd></dd>",
        "NaN",
        "undefined",
    ] {
        assert!(!html.contains(empty), "{empty}");
    }
}

#[test]
fn report_without_measurements_is_written() {
    let mut report = fixture(1);
    for list in [&mut report.warnings, &mut report.methods] {
        list.clear();
    }
    report.rows.clear();
    report.curves.clear();
    report.persistence.clear();
    report.utility.clear();
    report.examples.clear();
    report.attack.clear();
    assert!(html(&report).contains("not measured"));
    assert!(markdown(&report).contains("not measured"));
}

#[test]
fn files_are_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let report = fixture(3);
    write(&report, folder.path()).unwrap();
    assert_eq!(Report::from_json(&folder.path().join(JSON_FILE)).unwrap(), report);
    for name in [HTML_FILE, MARKDOWN_FILE] {
        let first = std::fs::read(folder.path().join(name)).unwrap();
        write(&report, folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), first);
    }
}

#[test]
fn other_files_are_no_reports() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(JSON_FILE);
    assert!(Report::from_json(&path).unwrap_err().to_string().contains("cannot read"));
    std::fs::write(&path, "{}").unwrap();
    assert!(Report::from_json(&path).unwrap_err().to_string().contains("is not the report"));
    std::fs::write(
        &path,
        fixture(1).to_json().replacen("\"schema_version\": 1", "\"schema_version\": 99", 1),
    )
    .unwrap();
    assert!(Report::from_json(&path).unwrap_err().to_string().contains("schema version 99"));
}

#[test]
fn host_details_can_be_left_out() {
    let json = fixture(1).without_host_details().to_json();
    for key in ["\"seconds\"", "\"machine\"", "\"peak-memory\""] {
        assert!(!json.contains(key), "{key}");
    }
}
