# The recipes of this project; `just` lists them.

_default:
    @just --list

# All checks, as CI runs them
check:
    .ci/run

# Format and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --release --locked -- -D warnings

# The tests
test:
    cargo test --workspace --release --locked

# The tests that need the default model, which is downloaded when it is not here
test-slow:
    DORMANT_TEST_MODEL="$(cargo run --release --locked --quiet -- models pull smollm2-135m-instruct --format json | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')" \
        cargo test --workspace --release --locked -- --ignored

# An experiment: the quickstart, a file, or a name with flags
run *ARGUMENTS:
    cargo run --release --locked -- run {{ARGUMENTS}}

# Measure this machine
bench *ARGUMENTS:
    cargo run --release --locked -- bench {{ARGUMENTS}}

# The API documentation, in a browser
docs:
    cargo doc --workspace --no-deps --release --locked --open

# Licences, advisories and sources of the dependencies
deny:
    cargo deny check
