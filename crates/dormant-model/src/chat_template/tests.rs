use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// What `apply_chat_template` makes of a conversation; `None` where the template refuses it. See
/// `fixtures/chat/make.py`.
#[derive(Deserialize)]
struct Golden {
    template: String,
    messages: Vec<Json>,
    add_generation_prompt: bool,
    text: Option<String>,
}

#[test]
fn rendering_equals_transformers() {
    let rows: Vec<Golden> =
        serde_json::from_slice(&fs::read(fixtures().join("chat/golden.json")).unwrap()).unwrap();
    assert_eq!(rows.len(), 64);
    for row in rows {
        let source = fs::read_to_string(fixtures().join(format!("chat/{}.jinja", row.template))).unwrap();
        let template = ChatTemplate::new(&source, "<|begin|>", "<|end|>").unwrap();
        let text = template.render(&row.messages, row.add_generation_prompt);
        assert_eq!(text.as_ref().ok(), row.text.as_ref(), "{}: {:?}: {text:?}", row.template, row.messages);
    }
}

fn render(source: &str) -> Result<String> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(&[json!({"role": "user", "content": "Hi"})], true)
}

#[test]
fn default_is_chatml() {
    let source = fs::read_to_string(fixtures().join("chat/chatml.jinja")).unwrap();
    assert_eq!(ChatTemplate::chatml().source(), source);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap().source(), source);
}

#[test]
fn folder_may_hold_the_template_in_three_ways() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let read = || ChatTemplate::from_folder(folder.path()).map(|template| template.source().to_owned());
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "tool_use", "template": "t"}]}"#);
    assert!(read().unwrap_err().to_string().contains("`default`"));
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "default", "template": "d"}]}"#);
    assert_eq!(read().unwrap(), "d");
    write("tokenizer_config.json", r#"{"chat_template": "c", "bos_token": {"content": "<s>"}}"#);
    assert_eq!(read().unwrap(), "c");
    write("chat_template.jinja", "{{ bos_token }}{{ eos_token }}");
    let template = ChatTemplate::from_folder(folder.path()).unwrap();
    assert_eq!(template.render::<Json>(&[], false).unwrap(), "<s>");
}

#[test]
fn a_template_sees_the_special_tokens_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let read = || ChatTemplate::from_folder(folder.path()).unwrap().render::<Json>(&[], false).unwrap();
    let names = "{{ bos_token is defined }} {{ pad_token }} {{ unk_token }} {{ sep_token }}";
    write("chat_template.jinja", names);
    let config = r#"{"bos_token": null, "pad_token": {"content": "<pad>"}, "unk_token": "<unk>""#;
    write("tokenizer_config.json", &format!("{config}}}"));
    assert_eq!(read(), "False <pad> <unk> ");
    write("special_tokens_map.json", r#"{"pad_token": "<other>", "sep_token": {"content": "<sep>"}}"#);
    assert_eq!(read(), "False <other> <unk> <sep>");
    write("tokenizer_config.json", &format!(r#"{config}, "added_tokens_decoder": {{}}}}"#));
    assert_eq!(read(), "False <pad> <unk> ");
}

#[test]
fn the_date_is_fixed() {
    assert_eq!(render("{{ strftime_now('%d %b %Y, %A 100%%') }}").unwrap(), "26 Jul 2024, Friday 100%");
    assert!(render("{{ strftime_now('%Q') }}").is_err());
}

#[test]
fn refusal_carries_the_templates_message() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("roles must alternate"), "{source}");
}

#[test]
fn json_has_pythons_form() {
    assert_eq!(
        render("{{ {'a': [1, '<é>'], 'b': none} | tojson }}").unwrap(),
        r#"{"a": [1, "<é>"], "b": null}"#
    );
    assert_eq!(render("{{ 'é' | tojson(ensure_ascii=false) }}").unwrap(), "\"é\"");
    assert!(render("{{ 'é' | tojson(ensure_ascii=true) }}").is_err());
    assert_eq!(render("{{ {'a': [1]} | tojson(indent=2) }}").unwrap(), "{\n  \"a\": [\n    1\n  ]\n}");
}

#[test]
fn generation_tags_are_conditions() {
    let without = jinja::without_generation_tags;
    assert_eq!(without("a{%- generation -%}b{% endgeneration %}c"), "a{%- if true -%}b{% endif %}c");
    assert_eq!(
        without("{% generations %}{% set generation = 1 %}"),
        "{% generations %}{% set generation = 1 %}"
    );
    assert_eq!(without("{%"), "{%");
}

#[test]
fn hostile_templates_run_out_of_their_budget() {
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 99999999 }}",
        "{{ ('x' * 9999999) * 10 }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ 'x' * 9000000 }}",
        "{{ [[1] * 1000] * 100000000 }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson(indent=4) }}",
        "{% for i in range(100000) %}{% set x = ['x' * 1000000] | tojson %}{% endfor %}",
        "{{ '%099999999d' | format(1) }}",
        "{{ 'x'.replace('', 'y' * 1000000).replace('', 'z' * 1000000) }}",
    ] {
        assert!(render(source).is_err(), "{source}");
    }
    assert!(ChatTemplate::new(&" ".repeat(2 << 20), "", "").is_err());
    assert!(ChatTemplate::new(&"{% if a %}".repeat(50_000), "", "").is_err());
    assert!(ChatTemplate::new(&format!("{{{{ {}1 }}}}", "(".repeat(100_000)), "", "").is_err());
}

#[test]
fn deeply_nested_values_do_not_overflow_the_stack() {
    let (open, close) = ("[".repeat(30), "]".repeat(30));
    let nested = format!(
        "{{% set ns = namespace(x=[1]) %}}{{% for i in range(15000) %}}{{% set ns.x = {open}ns.x{close} %}}{{% endfor %}}"
    );
    for (end, is_printed) in [
        ("", true),
        ("{{ ns.x }}", false),
        ("{{ ns.x ~ '' }}", false),
        ("{{ ns.x | tojson }}", true),
        ("{{ ns.x == [ns.x] }}", true),
    ] {
        assert_eq!(render(&format!("{nested}{end}")).is_ok(), is_printed, "{end}");
    }
}

proptest! {
    #[test]
    fn output_is_bounded_or_refused(count in 0..200_000_usize, copies in 0..2_000_usize) {
        let source = format!("{{% for i in range({count}) %}}{{{{ 'x' * {copies} }}}}{{% endfor %}}");
        if let Ok(text) = render(&source) {
            prop_assert!(text.len() <= MAX_OUTPUT_BYTES);
        }
    }

    #[test]
    fn any_source_is_a_template_or_an_error(source in "(\\{%|%\\}|\\{\\{|\\}\\}|-|if|for|in|generation|messages|[ a-z'|()\\[\\].+*0-9]){0,30}") {
        let _ = render(&source);
    }

    #[test]
    fn content_is_data_and_not_template(content in any::<String>()) {
        let text = ChatTemplate::chatml().render(&[json!({"role": "user", "content": content})], true).unwrap();
        prop_assert_eq!(text, format!("<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"));
    }
}
