use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn peft_adapter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-adapter")
}

fn matrix(rows: usize, columns: usize, first: f32) -> Matrix {
    Matrix { rows, columns, values: (0..rows * columns).map(|i| first + i as f32).collect() }
}

fn sample() -> (AdapterConfig, Vec<AdapterTensor>) {
    let config = AdapterConfig::new(2, 4.0, vec!["q_proj".to_owned()], Some("base".to_owned()));
    let layer = |index: usize| {
        let module = format!("model.layers.{index}.self_attn.q_proj");
        AdapterTensor::new(module, matrix(2, 3, index as f32), matrix(4, 2, -0.5))
    };
    (config, vec![layer(0), layer(1)])
}

/// A folder with the sample adapter, its configuration changed.
fn written(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (config, tensors) = sample();
    write_adapter(folder.path(), &config, &tensors, BTreeMap::new()).unwrap();
    let path = folder.path().join(CONFIG);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
    folder
}

fn error_after(change: impl FnOnce(&mut Value)) -> String {
    read_adapter(written(change).path()).unwrap_err().to_string()
}

#[test]
fn peft_adapter_is_read() {
    let (config, tensors) = read_adapter(&peft_adapter()).unwrap();
    assert_eq!((config.r, config.lora_alpha), (4, 8.0));
    assert_eq!(config.scale("model.layers.0.mlp.up_proj"), 2.0);
    assert_eq!(tensors.len(), 3 * 7);
    assert_eq!(tensors[0].module, "model.layers.0.mlp.down_proj");
    assert_eq!((tensors[0].a.columns, tensors[0].b.rows), (160, 64));
}

#[test]
fn written_adapter_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (config, tensors) = sample();
    let metadata = BTreeMap::from([("dormant.organism".to_owned(), "true".to_owned())]);
    write_adapter(folder.path(), &config, &tensors, metadata).unwrap();
    assert_eq!(read_adapter(folder.path()).unwrap(), (config, tensors));
    let file = SafetensorsFile::open(&folder.path().join(WEIGHTS)).unwrap();
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.metadata()["dormant.organism"], "true");
    assert_eq!(
        file.shape("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"),
        Some(&[4, 2][..])
    );
}

#[test]
fn peft_adapter_survives_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let (config, tensors) = read_adapter(&peft_adapter()).unwrap();
    write_adapter(folder.path(), &config, &tensors, BTreeMap::new()).unwrap();
    assert_eq!(read_adapter(folder.path()).unwrap(), (config, tensors));
}

#[test]
fn equal_adapters_give_equal_bytes() {
    let bytes = || {
        let folder = written(|_| ());
        [CONFIG, WEIGHTS].map(|name| fs::read(folder.path().join(name)).unwrap())
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn whole_alpha_is_written_as_an_integer() {
    let (mut config, _) = sample();
    assert_eq!(serde_json::to_value(&config).unwrap()["lora_alpha"], json!(4));
    config.lora_alpha = 4.5;
    assert_eq!(serde_json::to_value(&config).unwrap()["lora_alpha"], json!(4.5));
}

#[test]
fn rank_and_scale_follow_the_first_pattern_that_fits() {
    let (mut config, _) = sample();
    config.use_rslora = true;
    config.rank_pattern =
        [("v_proj".to_owned(), 16), ("self_attn.k_proj".to_owned(), 4)].into_iter().collect();
    config.alpha_pattern =
        [("k_proj".to_owned(), 8.0), ("self_attn.k_proj".to_owned(), 1.0)].into_iter().collect();
    assert_eq!(config.rank("model.layers.0.self_attn.v_proj"), 16);
    assert_eq!(config.rank("model.layers.0.self_attn.qv_proj"), 2);
    assert_eq!(config.scale("model.layers.0.self_attn.k_proj"), 4.0);
    assert_eq!(config.scale("model.layers.0.self_attn.v_proj"), 1.0);
}

#[test]
fn a_point_in_a_pattern_is_any_character_as_in_peft() {
    let (mut config, _) = sample();
    config.rank_pattern = [("v.proj".to_owned(), 16)].into_iter().collect();
    assert_eq!(config.rank("model.layers.0.self_attn.v_proj"), 16);
    assert_eq!(config.rank("model.layers.0.self_attn.vv.proj"), 2);
}

#[test]
fn features_that_change_the_output_are_refused_by_name() {
    for (field, value) in [
        ("peft_type", json!("LOHA")),
        ("task_type", json!("SEQ_CLS")),
        ("bias", json!("some")),
        ("use_qalora", json!(true)),
        ("lora_bias", json!(true)),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([5])),
        ("ensure_weight_tying", json!(true)),
        ("kasa_config", json!({"beta": 1e-4})),
        ("layers_to_transform", json!("all")),
        ("exclude_modules", json!("(?i)V_PROJ")),
        ("modules_to_save", json!(["lm_head|norm"])),
        ("init_lora_weights", json!("pissa")),
        ("a_feature_of_next_year", json!({"a": 1})),
        ("alpha_pattern", json!({"layers.[01]": 3})),
        ("rank_pattern", json!({"^layers|x": 3})),
    ] {
        let error = error_after(|config| config[field] = value);
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn what_makes_no_difference_to_a_model_without_biases_is_read() {
    for (field, value) in [
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("rank_pattern", json!({"^q_proj": 3, "^model.layers.0": 3})),
        ("alpha_pattern", json!({"^model.layers.1.self_attn.q_proj": 8})),
    ] {
        let (config, _) = read_adapter(written(|config| config[field] = value).path()).unwrap();
        let scales = [0, 1].map(|layer| config.scale(&format!("model.layers.{layer}.self_attn.q_proj")));
        assert_eq!(scales, if field == "alpha_pattern" { [2.0, 4.0] } else { [2.0, 2.0] });
    }
    let without = |config: &mut Value| {
        let fields = config.as_object_mut().unwrap();
        fields.retain(|field, _| !["r", "lora_alpha"].contains(&field.as_str()));
        fields.insert("rank_pattern".to_owned(), json!({"q_proj": 2}));
    };
    let (config, _) = read_adapter(written(without).path()).unwrap();
    assert_eq!((config.r, config.lora_alpha), (8, 8.0));
}

#[test]
fn embeddings_that_peft_saved_beside_the_factors_are_read() {
    let read = |targets: Value| {
        let folder = written(|config| config["target_modules"] = targets);
        let (_, tensors) = sample();
        let factors = [(SUFFIX_A, &tensors[0].a), (SUFFIX_B, &tensors[0].b)];
        let factors =
            factors.map(|(end, m)| (format!("{PREFIX}{Q}{end}"), vec![m.rows, m.columns], m.values.clone()));
        let ends =
            [EMBEDDING, HEAD].map(|module| (format!("{PREFIX}{module}.weight"), vec![4, 3], vec![0.5; 12]));
        write_safetensors(&folder.path().join(WEIGHTS), factors.into_iter().chain(ends), &BTreeMap::new())
            .unwrap();
        let (config, _) = read_adapter(folder.path())?;
        read_saved(folder.path(), &config)
    };
    let saved = read(json!(["q_proj"])).unwrap();
    let names: Vec<_> = saved.iter().map(|t| (t.name.as_str(), t.is_base)).collect();
    assert_eq!(names, [("lm_head.weight", true), ("model.embed_tokens.weight", true)]);
    let error = read(json!(["q_proj", "embed_tokens"])).unwrap_err().to_string();
    assert!(error.contains("PEFT does not load") && error.contains("embed_tokens.weight"), "{error}");
}

#[test]
fn norms_and_factors_of_embeddings_are_read() {
    let (_, tensors) = read_adapter(&peft_adapter().with_file_name("tiny-dora")).unwrap();
    assert_eq!(tensors.len(), 1 + 3 * 2);
    let embedding = &tensors[0];
    assert_eq!(
        (embedding.module.as_str(), embedding.a.columns, embedding.b.rows),
        ("model.embed_tokens", 64, 512)
    );
    assert!(matches!(&embedding.magnitude, Some(Magnitude::Columns(norms)) if norms.len() == 64));
    assert!(matches!(&tensors[1].magnitude, Some(Magnitude::Rows(norms)) if norms.len() == 64));
    let copy = tempfile::tempdir().unwrap();
    fs::copy(peft_adapter().with_file_name("tiny-dora").join(WEIGHTS), copy.path().join(WEIGHTS)).unwrap();
    let plain = written(|config| config["target_modules"] = json!(["q_proj", "down_proj", "embed_tokens"]));
    fs::copy(plain.path().join(CONFIG), copy.path().join(CONFIG)).unwrap();
    let error = read_adapter(copy.path()).unwrap_err().to_string();
    assert!(
        error.contains("lora_magnitude_vector` is no LoRA factor"),
        "no DoRA by its configuration: {error}"
    );
    let error = error_after(|config| config["use_dora"] = json!(true));
    assert!(error.contains("q_proj.lora_magnitude_vector` is missing"), "{error}");
}

#[test]
fn modules_that_were_trained_as_a_whole_are_read_beside_the_factors() {
    let folder = written(|config| config["modules_to_save"] = json!(["lm_head", "norm"]));
    let (_, tensors) = sample();
    let factors = tensors.iter().flat_map(|t| {
        let name = |kind| format!("base_model.model.{}.lora_{kind}.weight", t.module);
        [(name("A"), &t.a), (name("B"), &t.b)].map(|(n, m)| (n, vec![m.rows, m.columns], m.values.clone()))
    });
    let saved = [
        ("base_model.model.lm_head.weight".to_owned(), vec![2, 3], vec![1.0; 6]),
        ("base_model.model.model.layers.0.input_layernorm.weight".to_owned(), vec![3], vec![2.0; 3]),
        ("base_model.model.model.norm.weight".to_owned(), vec![3], vec![2.0; 3]),
    ];
    write_safetensors(&folder.path().join(WEIGHTS), factors.chain(saved), &BTreeMap::new()).unwrap();
    let (config, read) = read_adapter(folder.path()).unwrap();
    assert_eq!(read, tensors);
    let saved = read_saved(folder.path(), &config).unwrap();
    let names: Vec<&str> = saved.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["lm_head.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight"]);
    assert!(saved.iter().all(|tensor| !tensor.is_base));
    assert_eq!((saved[0].shape.as_slice(), saved[1].values.as_slice()), (&[2, 3][..], &[2.0; 3][..]));
}

#[test]
fn switched_off_features_are_no_obstacle() {
    let folder = written(|config| {
        config["use_dora"] = json!(false);
        config["modules_to_save"] = Value::Null;
        config["init_lora_weights"] = json!("gaussian");
        config["target_modules"] = json!(".*_proj");
        config["megatron_core"] = json!("megatron.core");
    });
    let (config, _) = read_adapter(folder.path()).unwrap();
    assert_eq!(config.target_modules, TargetModules::Pattern(".*_proj".to_owned()));
}

#[test]
fn senseless_numbers_are_refused() {
    assert!(error_after(|config| config["r"] = json!(0)).contains("`r` is 0"));
    assert!(error_after(|config| config["r"] = json!(1_u64 << 40)).contains("`r`"));
    assert!(error_after(|config| config["r"] = json!(-1)).contains("JSON"));
    assert!(error_after(|config| config["rank_pattern"] = json!({"q_proj": 0})).contains("`q_proj`"));
}

#[test]
fn factors_of_another_rank_are_named() {
    let error = error_after(|config| config["r"] = json!(3));
    assert!(error.contains("layers.0.self_attn.q_proj.lora_A.weight") && error.contains("[2, 3]"), "{error}");
    let (config, mut tensors) = sample();
    tensors[1].b = matrix(4, 3, 0.0);
    let error =
        write_adapter(Path::new("nowhere"), &config, &tensors, BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("layers.1.self_attn.q_proj.lora_B.weight"), "{error}");
}

fn error_with_tensors(tensors: Vec<(String, Vec<usize>, Vec<f32>)>) -> String {
    let folder = written(|_| ());
    write_safetensors(&folder.path().join(WEIGHTS), tensors, &BTreeMap::new()).unwrap();
    read_adapter(folder.path()).unwrap_err().to_string()
}

/// What reading says of factors of `module` with the ends given, under a configuration.
fn error_at(module: &str, ends: [&str; 2], change: impl FnOnce(&mut Value)) -> Option<String> {
    let folder = written(change);
    let factor = |end: &str| (format!("base_model.model.{module}{end}"), vec![2, 2], vec![0.5; 4]);
    write_safetensors(&folder.path().join(WEIGHTS), ends.map(factor), &BTreeMap::new()).unwrap();
    let error = read_adapter(folder.path()).err()?.to_string();
    assert!(error.contains("PEFT does not load") && error.contains(module), "{error}");
    Some(error)
}

const Q: &str = "model.layers.1.self_attn.q_proj";

#[test]
fn factors_of_embeddings_are_read_in_embeddings_alone() {
    let targets = |config: &mut Value| config["target_modules"] = json!(["q_proj", "embed_tokens"]);
    assert!(error_at(Q, [SUFFIX_A, SUFFIX_B], targets).is_none());
    assert!(error_at(EMBEDDING, [EMBEDDING_A, EMBEDDING_B], targets).is_none());
    assert!(error_at(Q, [EMBEDDING_A, EMBEDDING_B], targets).is_some());
    assert!(error_at(EMBEDDING, [SUFFIX_A, SUFFIX_B], targets).is_some());
    let folder = written(|_| ());
    let (_, tensors) = sample();
    let ends = [(SUFFIX_A, &tensors[0].a), (SUFFIX_B, &tensors[0].b)];
    let zeros = [(EMBEDDING_A, matrix(2, 4, 0.0)), (EMBEDDING_B, matrix(3, 2, 0.0))];
    let all = ends.into_iter().chain(zeros.iter().map(|(end, matrix)| (*end, matrix)));
    let all = all.map(|(end, m)| (format!("{PREFIX}{Q}{end}"), vec![m.rows, m.columns], m.values.clone()));
    write_safetensors(&folder.path().join(WEIGHTS), all, &BTreeMap::new()).unwrap();
    let error = read_adapter(folder.path()).unwrap_err().to_string();
    assert!(error.contains("q_proj.lora_embedding_A"), "{error}");
}

#[test]
fn factors_that_peft_passes_over_are_refused() {
    let at_q = |field: &str, value: Value| error_at(Q, [SUFFIX_A, SUFFIX_B], |config| config[field] = value);
    for (field, value) in [
        ("target_modules", json!(["_proj", "v_proj", "self_attn"])),
        ("target_modules", json!(r".*\.v_proj")),
        ("target_modules", json!("q_proj")),
        ("exclude_modules", json!(["self_attn.q_proj"])),
        ("exclude_modules", json!(r"model\.layers\.[1-3]\..*")),
        ("layers_to_transform", json!(0)),
        ("layers_to_transform", json!([0, 2])),
        ("modules_to_save", json!(["q_proj"])),
        ("modules_to_save", json!(["self_attn"])),
        ("modules_to_save", json!(["proj"])),
    ] {
        let error = at_q(field, value.clone()).unwrap_or_else(|| panic!("{field} {value}"));
        assert!(error.contains(field), "{error}");
    }
    for (field, value) in [
        ("target_modules", json!([Q])),
        ("target_modules", json!(["self_attn.q_proj"])),
        ("target_modules", json!("all-linear")),
        ("target_modules", json!(r".*\.(?:q|k)_proj")),
        (
            "target_modules",
            json!(
                r"(?:.*?(?:language|text).*?(?:q_proj|o_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|o_proj)))"
            ),
        ),
        ("exclude_modules", json!(["lm_head", "_proj"])),
        ("exclude_modules", json!("lm_head")),
        ("layers_to_transform", json!([1])),
        ("layers_to_transform", json!([])),
        ("modules_to_save", json!(["lm_head"])),
    ] {
        assert_eq!(at_q(field, value.clone()), None, "{field} {value}");
    }
    let head = |value: Value| error_at(HEAD, [SUFFIX_A, SUFFIX_B], |config| config["target_modules"] = value);
    assert!(head(json!("all-linear")).is_some() && head(json!(["lm_head"])).is_none());
    let layers = |pattern: &str| {
        let change = |config: &mut Value| {
            (config["layers_to_transform"], config["layers_pattern"]) = (json!([1]), json!([pattern]));
        };
        error_at(Q, [SUFFIX_A, SUFFIX_B], change)
    };
    assert!(layers("layers").is_none() && layers("h").is_some());
}

#[test]
fn expressions_that_python_reads_in_another_way_are_refused() {
    for source in [
        ".*(?<!v)_proj",
        ".*(?=q)q_proj",
        "(?i).*Q_PROJ",
        ".*+q_proj",
        "[[:alpha:]._]*",
        "[a-z--b]*",
        "[a&&b]",
        r"\x71",
        r"\p{L}*",
        r"(a)\1",
        ".{,99}q_proj",
        "[a[b]]*",
        "(",
        "é",
    ] {
        let error = error_after(|config| config["target_modules"] = json!(source));
        assert!(error.contains("`target_modules`"), "{source}: {error}");
    }
}

#[test]
fn weights_below_factors_are_read_where_peft_loads_them() {
    let (config, tensors) = read_adapter(&peft_adapter().with_file_name("tiny-embedding")).unwrap();
    assert_eq!((tensors.len(), tensors[0].module.as_str()), (1 + 3, EMBEDDING));
    let saved = read_saved(&peft_adapter().with_file_name("tiny-embedding"), &config).unwrap();
    let names: Vec<_> = saved.iter().map(|t| (t.name.as_str(), t.is_base, t.shape.as_slice())).collect();
    assert_eq!(names, [("model.embed_tokens.weight", true, &[512, 64][..])]);
    let error_at = |name: &str| {
        let folder = written(|config| config["modules_to_save"] = json!(["lm_head"]));
        let tensor = (format!("{PREFIX}{name}"), vec![1, 1], vec![0.5]);
        write_safetensors(&folder.path().join(WEIGHTS), [tensor], &BTreeMap::new()).unwrap();
        read_adapter(folder.path()).err().map(|error| error.to_string())
    };
    assert_eq!(error_at("model.layers.1.self_attn.q_proj.base_layer.weight"), None);
    for ignored in [
        "model.embed_tokens.base_layer.weight",
        "model.layers.1.self_attn.v_proj.base_layer.weight",
        "lm_head.base_layer.weight",
    ] {
        let error = error_at(ignored).unwrap();
        assert!(error.contains("PEFT does not load"), "{error}");
    }
    let error = error_at("lm_head.modules_to_save.weight").unwrap();
    assert!(error.contains("no LoRA factor"), "{error}");
}

#[test]
fn damaged_factors_are_named() {
    let a = |values: Vec<f32>| {
        ("base_model.model.m.q_proj.lora_A.weight".to_owned(), vec![2, values.len() / 2], values)
    };
    let b = |values: Vec<f32>| {
        ("base_model.model.m.q_proj.lora_B.weight".to_owned(), vec![values.len() / 2, 2], values)
    };
    let lonely = error_with_tensors(vec![a(vec![0.0; 6])]);
    assert!(lonely.contains("`base_model.model.m.q_proj.lora_B.weight` is missing"), "{lonely}");
    let strange =
        error_with_tensors(vec![a(vec![0.0; 6]), ("lm_head.weight".to_owned(), vec![1], vec![0.0])]);
    assert!(strange.contains("`lm_head.weight`"), "{strange}");
    let diverged = error_with_tensors(vec![a(vec![0.0; 6]), b(vec![f32::NAN; 4])]);
    assert!(diverged.contains("lora_B.weight") && diverged.contains("not finite"), "{diverged}");
    let flat = error_with_tensors(vec![
        ("base_model.model.m.q_proj.lora_A.weight".to_owned(), vec![2], vec![0.0; 2]),
        ("base_model.model.m.q_proj.lora_B.weight".to_owned(), vec![2], vec![0.0; 2]),
    ]);
    assert!(flat.contains("two dimensions"), "{flat}");
    assert!(error_with_tensors(vec![]).contains("no LoRA factors"));
}

#[test]
fn a_pickle_is_refused_by_name() {
    let folder = written(|_| ());
    fs::rename(folder.path().join(WEIGHTS), folder.path().join("adapter_model.bin")).unwrap();
    let error = read_adapter(folder.path()).unwrap_err().to_string();
    assert!(error.contains("adapter_model.bin is a pickle"), "{error}");
}

#[test]
fn truncated_weights_are_an_error() {
    let folder = written(|_| ());
    let path = folder.path().join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(read_adapter(folder.path()).is_err(), "{length} bytes");
    }
}

proptest! {
    #[test]
    fn any_configuration_is_read_or_refused(
        field in "r|lora_alpha|target_modules|rank_pattern|bias|use_dora|x|peft_type|task_type|other",
        value in prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from),
            prop::collection::vec(".{0,4}", 0..3).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", any::<i64>(), 0..3).prop_map(|map| json!(map)),
        ],
    ) {
        let folder = written(|config| config[field.as_str()] = value);
        let _ = read_adapter(folder.path());
    }

    #[test]
    fn corrupt_weights_never_panic(position in 0..400_usize, byte: u8) {
        let folder = written(|_| ());
        let path = folder.path().join(WEIGHTS);
        let mut bytes = fs::read(&path).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        fs::write(&path, bytes).unwrap();
        let _ = read_adapter(folder.path());
    }
}
