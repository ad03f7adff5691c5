//! Files, archives and ports inside workspaces. Content passes through and is never looked at.

use pinfold_auth::{Grant, ops};
use pinfold_proto::{ArchiveOptions, Archived, FileList, WriteOptions};
use pinfold_types::{
    Result,
    api::{FileInfo, PortInfo, WatchEvent},
    files::{
        ChangeMode, FilePath, ListFiles, MakeDirectory, ReadFile, RemoveFile, RenameFile,
        WatchFiles, WriteArchive, WriteFile,
    },
};
use tokio::sync::mpsc;

use crate::{ByteStream, Node, Service, Tracked, check};

impl<N: Node> Service<N> {
    /// Facts of a path.
    pub async fn stat_file(
        &self,
        grant: Grant<ops::FileStat>,
        request: &FilePath,
    ) -> Result<FileInfo> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self.node().stat_file(call.reference(), &request.path).await;
        call.end(result).await
    }

    /// A page of a directory.
    pub async fn list_files(
        &self,
        grant: Grant<ops::FileList>,
        request: &ListFiles,
    ) -> Result<FileList> {
        request.check()?;
        let call = self.enter(grant)?;
        let after = request.after.as_deref();
        let result =
            self.node().list_files(call.reference(), &request.path, after, request.limit).await;
        call.end(result).await
    }

    /// A file's bytes.
    pub async fn read_file(
        &self,
        grant: Grant<ops::FileRead>,
        request: &ReadFile,
    ) -> Result<Tracked<ByteStream>> {
        request.check()?;
        let call = self.enter(grant)?;
        let offset = request.offset.unwrap_or(0);
        let result =
            self.node().read_file(call.reference(), &request.path, offset, request.length).await;
        call.stream(result).await
    }

    /// A file's bytes, as many as `choose` wants when it is told how many there are: from an
    /// offset on, so many; none for no bytes at all. Answers with the file's size too.
    pub async fn read_file_part(
        &self,
        grant: Grant<ops::FileRead>,
        path: &str,
        choose: impl FnOnce(u64) -> Option<(u64, u64)> + Send,
    ) -> Result<(u64, Option<Tracked<ByteStream>>)> {
        ReadFile { path: path.to_owned(), offset: None, length: None }.check()?;
        let call = self.enter(grant)?;
        let node = self.node();
        let facts = match node.stat_file(call.reference(), path).await {
            Ok(facts) => facts,
            Err(failed) => return call.end(Err(failed)).await,
        };
        match choose(facts.size_bytes) {
            None => call.end(Ok((facts.size_bytes, None))).await,
            Some((offset, length)) => {
                let result = node.read_file(call.reference(), path, offset, Some(length)).await;
                call.stream(result).await.map(|stream| (facts.size_bytes, Some(stream)))
            }
        }
    }

    /// Writes a file.
    pub async fn write_file(
        &self,
        grant: Grant<ops::FileWrite>,
        request: &WriteFile,
        content: ByteStream,
    ) -> Result<FileInfo> {
        request.check()?;
        let call = self.enter(grant)?;
        let options = WriteOptions {
            offset: request.offset,
            mode: request.mode,
            create_parents: request.parents,
        };
        let result =
            self.node().write_file(call.reference(), &request.path, options, content).await;
        call.end(result).await
    }

    /// Makes a directory.
    pub async fn make_directory(
        &self,
        grant: Grant<ops::FileMkdir>,
        request: &MakeDirectory,
    ) -> Result<()> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self
            .node()
            .make_dir(call.reference(), &request.path, request.mode, request.parents)
            .await;
        call.end(result).await
    }

    /// Moves a file or directory.
    pub async fn rename_file(
        &self,
        grant: Grant<ops::FileRename>,
        request: &RenameFile,
    ) -> Result<()> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self.node().rename_file(call.reference(), &request.from, &request.to).await;
        call.end(result).await
    }

    /// Removes a file or directory.
    pub async fn remove_file(
        &self,
        grant: Grant<ops::FileRemove>,
        request: &RemoveFile,
    ) -> Result<()> {
        request.check()?;
        let call = self.enter(grant)?;
        let result =
            self.node().remove_file(call.reference(), &request.path, request.recursive).await;
        call.end(result).await
    }

    /// Changes permission bits.
    pub async fn change_mode(
        &self,
        grant: Grant<ops::FileChmod>,
        request: &ChangeMode,
    ) -> Result<()> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self.node().chmod_file(call.reference(), &request.path, request.mode).await;
        call.end(result).await
    }

    /// Changes below a path, as they happen.
    pub async fn watch_files(
        &self,
        grant: Grant<ops::FileWatch>,
        request: &WatchFiles,
    ) -> Result<Tracked<mpsc::Receiver<WatchEvent>>> {
        request.check()?;
        let call = self.enter(grant)?;
        let result =
            self.node().watch_files(call.reference(), &request.path, request.recursive).await;
        call.stream(result).await
    }

    /// A tar of a file or directory.
    pub async fn read_archive(
        &self,
        grant: Grant<ops::ArchiveRead>,
        request: &FilePath,
    ) -> Result<Tracked<ByteStream>> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = self.node().get_archive(call.reference(), &request.path).await;
        call.stream(result).await
    }

    /// Unpacks a tar.
    pub async fn write_archive(
        &self,
        grant: Grant<ops::ArchiveWrite>,
        request: &WriteArchive,
        content: ByteStream,
    ) -> Result<Archived> {
        request.check()?;
        let call = self.enter(grant)?;
        let options = ArchiveOptions {
            owners: request.owners,
            create: request.create,
            ..ArchiveOptions::default()
        };
        let result =
            self.node().put_archive(call.reference(), &request.path, options, content).await;
        call.end(result).await
    }

    /// Ports that something inside listens on.
    pub async fn ports(&self, grant: Grant<ops::PortList>) -> Result<Vec<PortInfo>> {
        let call = self.enter(grant)?;
        let result = self.node().ports(call.reference()).await;
        call.end(result).await
    }

    /// One TCP connection to a port inside.
    pub async fn connect_port(
        &self,
        grant: Grant<ops::PortConnect>,
        port: u16,
    ) -> Result<Tracked<N::Tcp>> {
        check::port(port)?;
        let call = self.enter(grant)?;
        let result = self.node().tcp(call.reference(), port).await;
        call.stream(result).await
    }
}
