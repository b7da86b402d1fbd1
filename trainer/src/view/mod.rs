//! The viewer's server side: what the page may see of a run, on loopback or as a folder for any web host.
//!
//! Everything that is served is in one list of addresses, made beforehand: nothing outside it can be asked for.

mod exhibit;
mod server;

pub use exhibit::{Exhibit, Place};
pub use server::Server;
