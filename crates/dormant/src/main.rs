//! The `dormant` command.

fn main() -> std::process::ExitCode {
    dormant::main()
}
