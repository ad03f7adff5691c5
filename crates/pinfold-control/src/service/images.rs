//! Images.

use pinfold_auth::{Grant, ops};
use pinfold_types::{
    Result,
    api::{Page, PageQuery, RemovedImages},
    image::{BuildImage, ImageInfo, ImportImage, PullImage},
};

use crate::{ByteStream, Node, Progress, Service, Tracked, page::page};

fn id_of(info: &ImageInfo) -> Vec<String> {
    vec![info.id.to_string()]
}

impl<N: Node> Service<N> {
    /// One page of all images, oldest first.
    pub async fn list_images(
        &self,
        grant: Grant<ops::ImageList>,
        query: &PageQuery,
    ) -> Result<Page<ImageInfo>> {
        let call = self.enter(grant)?;
        let result = self.node().images().await;
        call.end(result.and_then(|all| page(all, query, |info| info.id))).await
    }

    /// One image.
    pub async fn image(&self, grant: Grant<ops::ImageRead>) -> Result<ImageInfo> {
        let call = self.enter(grant)?;
        let result = self.node().get_image(call.reference()).await;
        call.end(result).await
    }

    /// Removes an image, or one of its names.
    pub async fn remove_image(&self, grant: Grant<ops::ImageRemove>) -> Result<RemovedImages> {
        let call = self.enter(grant)?;
        let result = self.node().remove_image(call.reference()).await;
        call.end(result).await
    }

    /// Fetches an image.
    pub async fn pull_image(
        &self,
        grant: Grant<ops::ImagePull>,
        request: PullImage,
        progress: Progress,
    ) -> Result<ImageInfo> {
        let call = self.enter(grant)?;
        let result = self.node().pull_image(request, progress).await;
        call.end_with(result, id_of).await
    }

    /// Makes an image of an archive, a directory or a Debian release.
    pub async fn import_image(
        &self,
        grant: Grant<ops::ImageImport>,
        request: ImportImage,
        content: ByteStream,
        progress: Progress,
    ) -> Result<ImageInfo> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self.node().import_image(request, content, progress).await;
        call.end_with(result, id_of).await
    }

    /// Makes an image from steps.
    pub async fn build_image(
        &self,
        grant: Grant<ops::ImageBuild>,
        request: BuildImage,
        content: ByteStream,
        progress: Progress,
    ) -> Result<ImageInfo> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self.node().build_image(request, content, progress).await;
        call.end_with(result, id_of).await
    }

    /// Removes what nothing names or stands on.
    pub async fn prune_images(&self, grant: Grant<ops::ImagePrune>) -> Result<RemovedImages> {
        let call = self.enter(grant)?;
        let result = self.node().prune_images().await;
        call.end(result).await
    }

    /// An image as an OCI archive.
    pub async fn export_image(
        &self,
        grant: Grant<ops::ImageExport>,
    ) -> Result<Tracked<ByteStream>> {
        let call = self.enter(grant)?;
        let result = self.node().export_image(call.reference()).await;
        call.stream(result).await
    }
}
