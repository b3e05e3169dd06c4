"""One file of the source as pieces of CSV text in UTF-8, whatever it is: packed, a table, or in another encoding.

A fault of the file is refused at once. It may be read more than once, and must not change meanwhile.
"""

import codecs
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from data_ingestion.handoff import PipelineError
from data_ingestion.hashing import HashingReader, HeadStart, Progress
from data_ingestion.sources import Source

if TYPE_CHECKING:
    from data_ingestion.source_tables import TableFile

REFUSED = {  # by their first bytes: what people name by mistake
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"%PDF": "a PDF",
    b"SQLite": "an SQLite database",
    b"ORC": "an ORC file",
    b"FEA1": "a Feather file of the first version",
    b"\xff\xff\xff\xff": "an Arrow stream, not an Arrow file",
    b"\xff\xfe\0\0": "a text in UTF-32",
}
PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
TABLES = (b"PAR1", b"ARROW1")
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
MAX_EXPANSION = 200  # tables shrink tenfold or twentyfold; what grows more than this is a bomb
PIECE_BYTES = 4 * 1024 * 1024
READ_BYTES = 256 * 1024  # at once of a plain file: hashed and copied while they are in the processor's cache


class SourceReader:
    """The text of one file; it may be read again from the start.

    Parameters
    ----------
    source : the file

    Raises
    ------
    PipelineError : it is no text or table, or is damaged
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.notes: list[str] = []
        self.sha256 = ""
        self._head_start: HeadStart | None = None
        with self._open() as raw:
            head = raw.read(8)
        for first_bytes, title in REFUSED.items():
            if head.startswith(first_bytes):
                raise PipelineError(f"{source.name} is {title}, expected a CSV file. Save it as CSV in UTF-8.")
        self._packing = next((title for first, title in PACKINGS.items() if head.startswith(first)), None)
        if self._packing:
            self.notes.append(f"unpacked with {'bzip2' if self._packing == 'bz2' else self._packing}")
            head = self._read_unpacked_head()
        self.is_table = head.startswith(TABLES)
        mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
        self.encoding = (source.encoding or MARKS.get(mark, "utf-8")).lower()
        if self.is_table:
            self.notes.append("read as the table it is")
        elif MARKS.get(mark) == "utf-16" and not source.encoding:
            self.notes.append("read as UTF-16, which its byte-order mark announces")
        try:
            b" ".decode(self.encoding)  # says of rot13 and base64 too that they are none
        except UnicodeError:  # half a character of UTF-16
            pass
        except LookupError as err:
            raise PipelineError(f'unknown encoding "{self.encoding}". Known: utf-8, utf-16, latin-1, cp1252.') from err

    @property
    def is_plain(self) -> bool:
        """Whether the file is CSV text in UTF-8 as it stands, so that any place of it can be read by itself."""
        return not self.is_table and self._packing is None and codecs.lookup(self.encoding).name == "utf-8"

    def read_pieces(self, count: int, length: int) -> list[bytes]:
        """Return lines from places spread evenly over a plain file, the last piece up to its end.

        A newline within quotes may be taken for the end of a record: good enough for a first look.
        """
        pieces = []
        with self._open() as raw:
            for number in range(1, count + 1):
                raw.seek(max(0, (self.source.size - length) * number // count))
                piece = raw.read(length)
                piece = piece[piece.find(b"\n") + 1 :]
                pieces.append(piece if number == count else piece[: piece.rfind(b"\n") + 1])
        return [piece for piece in pieces if _is_readable(piece)]

    def hash_ahead(self) -> None:
        """Begin to take the sha256 of the file in a thread, until it is read."""
        self._head_start = HeadStart(self.source.path)

    def hash_whole(self) -> str:
        """Return the sha256 of the file as it stands; when it is read later, that is not done again."""
        if self._head_start is None:
            self._head_start = HeadStart(self.source.path)
        return self._head_start.finish()

    def iterate(self, progress: Progress | None = None, is_first_look: bool = False) -> Iterator[bytes]:
        """Yield the text in UTF-8 without byte-order mark, piece by piece; at the end `sha256` is known.

        Parameters
        ----------
        progress : called with the number of bytes of the file read so far
        is_first_look : whether only a few pieces are wanted, and the file is hashed ahead meanwhile

        Raises
        ------
        PipelineError : the file is damaged, not of its encoding, or has changed since it was found
        """
        if self.is_table:
            yield from self._iterate_table(progress)
            return
        with self._open() as raw:
            hashing = HashingReader(raw, self.source.size, progress, None if is_first_look else self._head_start)
            pieces = self._unpack(hashing) if self._packing else iter(lambda: hashing.read(READ_BYTES), b"")
            yield from self._decode(pieces)
            while hashing.read(READ_BYTES):
                pass
        self.sha256 = hashing.hexdigest()
        check_unchanged(self.source)

    def list_texts(self) -> list[str]:
        """Return the columns of a table that hold texts; none of a CSV, where all do."""
        if not self.is_table:
            return []
        table = self._open_table()
        try:
            return table.text_columns
        finally:
            table.close()

    def _iterate_table(self, progress: Progress | None) -> Iterator[bytes]:
        self.sha256 = self.hash_whole()
        table = self._open_table()
        try:
            for share, text in table.iterate_csv():
                if progress is not None:
                    progress(int(share * self.source.size))
                yield text
        finally:
            table.close()
        check_unchanged(self.source)

    def _open_table(self) -> "TableFile":
        from data_ingestion.source_tables import TableFile

        if not self._packing:
            return TableFile(self.source.path, self.source.name)
        raise PipelineError(
            f"{self.source.name} is a table packed with {self._packing}. Unpack it, then name the result: --source FILE"
        )

    def _open(self) -> IO[bytes]:
        try:
            return self.source.path.open("rb")
        except OSError as err:
            raise PipelineError(
                f"{self.source.path} cannot be read: {err.strerror}. Mend that, then run the command again."
            ) from err

    def _read_unpacked_head(self) -> bytes:
        with self._open() as raw:
            return next(self._unpack(HashingReader(raw, self.source.size, None)), b"")[:8]

    def _unpack(self, raw: HashingReader) -> Iterator[bytes]:
        """Yield the content after gzip, bzip2 or zstd is undone."""
        import pyarrow as pa

        name, size = self.source.name, 0
        title = "bzip2" if self._packing == "bz2" else self._packing
        try:
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), self._packing)
            while piece := stream.read(PIECE_BYTES):
                size += len(piece)
                if size > MAX_EXPANSION * self.source.size + PIECE_BYTES:
                    raise PipelineError(
                        f"{name} grows more than {MAX_EXPANSION}-fold when it is unpacked, which no table does. "
                        "If it is one, unpack it yourself and name the result: --source FILE"
                    )
                yield piece
        except (OSError, EOFError, pa.ArrowException) as err:
            raise PipelineError(
                f"{name} is cut short or damaged: it cannot be unpacked with {title}. Copy it again."
            ) from err

    def _decode(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the text in UTF-8; UTF-8 itself goes on as it is, and whoever casts it finds what is not valid."""
        if codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig"):
            first = next(pieces, b"")
            yield first.removeprefix(codecs.BOM_UTF8)
            yield from pieces
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            yield decoder.decode(next(pieces, b"")).removeprefix("\ufeff").encode()
            for piece in pieces:
                yield decoder.decode(piece).encode()
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as err:
            begins = "begins like UTF-16 but is not" if self.encoding == "utf-16" else f"is not {self.encoding}"
            raise PipelineError(f"{self.source.name} {begins}: {err}. Save it as UTF-8.") from err


def _is_readable(piece: bytes) -> bool:
    """Return whether a piece of a file is text with whole quotes; what is wrong with it is found when all is read."""
    if not piece.strip() or piece.count(b'"') % 2 or b"\0" in piece:
        return False
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_unchanged(source: Source) -> None:
    """Raise when a file is no longer the one that was found."""
    try:
        status = source.path.stat()
    except OSError:
        status = None
    if status is None or (status.st_size, status.st_mtime_ns) != (source.size, source.modified_ns):
        raise PipelineError(f"{source.name} changed while it was read. Run the command again when its writer is done.")
