package ocilayout

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/internal/durable"
)

// directUpload is an upload whose file holds some bytes, so many of them.
func directUpload(t *testing.T, size int) (u *upload, content []byte) {
	t.Helper()
	l := open(t, t.TempDir())
	up, err := repo(t, l, "x").NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	u = up.(*upload)
	t.Cleanup(func() { u.Cancel(context.Background()) })
	content = make([]byte, size)
	for i := range content {
		content[i] = byte(i>>20 ^ i>>7)
	}
	if _, err := u.Write(content); err != nil {
		t.Fatal(err)
	}
	return u, content
}

// What is hashed while it is read, and what is read thereafter, are all of the file, whatever its size and however many buffers
// others have taken.
func TestHashAhead(t *testing.T) {
	for _, size := range []int{directAfter - 1, directAfter, directAfter + 1, 9*chunkSize - durable.DirectUnit, 9*chunkSize + durable.DirectUnit, 20*chunkSize + 777} {
		u, content := directUpload(t, size)
		for _, free := range []int{2 * chunksEach, chunksEach, 1, 0} {
			stock := newChunks()
			taken := stock.several(cap(stock.room) - free)
			r, sum := u.newDirectReader(int64(size)), sha256.New()
			r.hashAhead(t.Context(), stock, sum)
			if r.direct != nil && free > 0 && runtime.GOOS == "linux" && r.at != r.units {
				t.Errorf("%d bytes, %d buffers: %d bytes were hashed ahead, want %d", size, free, r.at, r.units)
			}
			n, err := io.Copy(sum, onlyReader{r})
			if err != nil || r.at != int64(size) {
				t.Errorf("%d bytes, %d buffers: read %d more, to %d, %v", size, free, n, r.at, err)
			}
			if got := digest.NewDigest(digest.SHA256, sum); got != digest.FromBytes(content) {
				t.Errorf("%d bytes, %d buffers: the digest is another one", size, free)
			}
			stock.putAll(taken)
			if left := len(stock.room); left != 0 {
				t.Errorf("%d bytes, %d buffers: %d buffers were not given back", size, free, left)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			stock.close()
		}
	}
}

// A file that has come to be shorter, and a context that is over, end it early.
func TestHashAheadEndsEarly(t *testing.T) {
	u, content := directUpload(t, 12*chunkSize)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r, sum := u.newDirectReader(12*chunkSize), sha256.New()
	r.hashAhead(over, u.repo.layout.chunks, sum)
	if r.at != 0 {
		t.Errorf("%d bytes were hashed for nobody", r.at)
	}
	const rest = 10*chunkSize + 5
	if err := os.Truncate(u.repo.layout.path(u.path), rest); err != nil {
		t.Fatal(err)
	}
	r.hashAhead(t.Context(), u.repo.layout.chunks, sum)
	if n, err := io.Copy(sum, onlyReader{r}); err != nil || r.at != rest {
		t.Errorf("read %d more, to %d, %v", n, r.at, err)
	}
	if got := digest.NewDigest(digest.SHA256, sum); got != digest.FromBytes(content[:rest]) {
		t.Error("the digest is another one")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A layout is not kept from closing by who is still hashing.
func TestCloseDoesNotWaitForAQueueInUse(t *testing.T) {
	u, _ := directUpload(t, directAfter)
	r, stock := u.newDirectReader(directAfter), newChunks()
	defer r.Close()
	if r.direct == nil {
		t.Skip("files are not read past the system's memory here")
	}
	bufs := stock.several(1)
	queue, err := newReadQueue(r.direct, bufs)
	if err != nil {
		t.Skip(err)
	}
	queue.begin(0, 0, chunkSize)
	stock.close()
	if read := queue.wait(0); len(read) != chunkSize {
		t.Errorf("read %d bytes", len(read))
	}
	stock.forget(queue)
	stock.putAll(bufs)
}
