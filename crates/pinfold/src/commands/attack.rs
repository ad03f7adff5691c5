use pinfold_types::{Error, Result};
pub(super) async fn attack(_c: &super::Context) -> Result<u8> {
    Err(Error::internal("x"))
}
