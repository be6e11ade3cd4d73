//! The `kappa` command: everything is in the library.

fn main() -> std::process::ExitCode {
    kappa::cli::main()
}
