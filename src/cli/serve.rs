//! `slm-fast serve`: the live view of a data folder.

use slm_fast::error::Result;
use slm_fast::serve::{Options, Server};

use super::{Ending, ServeArgs, note, say};

/// Says where the page is, and answers until Ctrl-C.
pub fn serve(args: &ServeArgs) -> Result<Ending> {
    let server = Server::bind(Options {
        data: args.data.clone(),
        address: args.address,
        port: args.port,
        token: args.token.clone(),
    })?;
    say(&format!("{} shows {}; Ctrl-C ends it", server.url(), args.data.display()));
    if !args.address.is_loopback() {
        note(
            "note: what is sent, the token too, is not encrypted; on a network that others listen to forward the port by ssh",
        );
    }
    server.run();
    Ok(Ending::Success)
}
