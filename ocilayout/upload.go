package ocilayout

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

const (
	// abandonedAfter is how long an upload may rest before its bytes are thrown away.
	abandonedAfter = 24 * time.Hour
	// maxRestingHashes bounds the hash states that are kept for uploads between two requests; an
	// upload whose state was dropped is hashed once more from its file.
	maxRestingHashes = 1024
	// copyBuffer is the step in which a body is read, hashed and written.
	copyBuffer = 256 << 10
	// uploadPatience is how long a request waits for another that has the upload.
	uploadPatience = 10 * time.Second
)

var errUploadHeld = fmt.Errorf("%w: another request is writing to it", berth.ErrUploadInvalid)

var uploadID = regexp.MustCompile(`^(sha256|sha384|sha512)-[a-z2-7]{26}$`)

// uploadTable holds what is known of uploads beyond their files. A file alone is enough to resume
// one: its name tells repository and algorithm, its length the offset.
type uploadTable struct {
	mu sync.Mutex // guards the fields below, and the users of every state
	// live maps an upload's path to its state.
	live map[string]*uploadState
}

// uploadState is what would have to be read from the file again.
type uploadState struct {
	// held is full while a caller has the upload, which alone touches hash and size.
	held chan struct{}
	hash hash.Hash // nil where nothing is kept
	size int64
	// users counts the caller who has the upload and those who wait for it.
	users int
}

// take waits until nobody else has the upload and returns its state, which is empty where none was
// kept. A client that lost its connection comes back before the server has noticed the loss, and one
// that asks how far an upload is must not turn away the one that writes: so they take turns.
func (t *uploadTable) take(ctx context.Context, path string) (*uploadState, error) {
	state := t.join(path)
	ctx, cancel := context.WithTimeoutCause(ctx, uploadPatience, errUploadHeld)
	defer cancel()
	select {
	case state.held <- struct{}{}:
		return state, nil
	case <-ctx.Done():
		t.leave(path, state)
		return nil, context.Cause(ctx)
	}
}

func (t *uploadTable) join(path string) *uploadState {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := t.live[path]
	if state == nil {
		state = &uploadState{held: make(chan struct{}, 1)}
		t.live[path] = state
	}
	state.users++
	return state
}

// leave drops a state that nobody uses if it has nothing to tell, or if too many are kept.
func (t *uploadTable) leave(path string, state *uploadState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state.users--
	if state.users == 0 && (state.hash == nil || len(t.live) > maxRestingHashes) {
		delete(t.live, path)
	}
}

// release gives a taken upload to the next who waits for it.
func (t *uploadTable) release(path string, state *uploadState) {
	t.leave(path, state)
	<-state.held
}

// upload is a file in ingest/ that one caller is appending to.
type upload struct {
	repo  *repository
	id    string
	path  string
	file  *os.File
	state *uploadState
	over  bool
}

func (r *repository) NewUpload(ctx context.Context, opts *berth.UploadOptions) (berth.Upload, error) {
	if opts == nil {
		opts = &berth.UploadOptions{}
	}
	if opts.Mount != "" {
		mounted, err := r.mount(ctx, opts.Mount, opts.From)
		if mounted {
			err = berth.ErrMounted
		}
		if err != nil {
			return nil, err
		}
	}
	algorithm := opts.Algorithm
	if algorithm == "" {
		algorithm = digest.SHA256
	}
	if !algorithm.Available() {
		return nil, fmt.Errorf("%w: algorithm %.20q is not available here", berth.ErrDigestInvalid, algorithm)
	}
	return r.openUpload(ctx, newUploadID(algorithm), os.O_CREATE|os.O_EXCL)
}

func newUploadID(algorithm digest.Algorithm) string {
	return algorithm.String() + "-" + strings.ToLower(rand.Text())
}

func (r *repository) ResumeUpload(ctx context.Context, id string) (berth.Upload, error) {
	if !uploadID.MatchString(id) {
		return nil, r.unknownUpload(id)
	}
	up, err := r.openUpload(ctx, id, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.unknownUpload(id)
	}
	return up, err
}

func (r *repository) unknownUpload(id string) error {
	return fmt.Errorf("%s: %w: %.60q", r.name, berth.ErrUploadUnknown, id)
}

func (r *repository) openUpload(ctx context.Context, id string, flag int) (berth.Upload, error) {
	up := &upload{repo: r, id: id, path: r.uploadPath(id)}
	var err error
	if up.state, err = r.layout.uploads.take(ctx, up.path); err != nil {
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	up.file, err = r.layout.dir.Root().OpenFile(up.path, flag|os.O_RDWR, 0o644)
	if err == nil {
		err = up.restore()
	}
	if err != nil {
		up.forget()
		return nil, err
	}
	return up, nil
}

// uploadPath puts the repository into the file's name, so that an upload is found only in the
// repository that it belongs to; hashed, because a name may be longer than a file's may.
func (r *repository) uploadPath(id string) string {
	sum := sha256.Sum256([]byte(r.name))
	return ingestPath + "/" + hex.EncodeToString(sum[:8]) + "." + id
}

// restore makes sure that the hash has seen what the file holds.
func (u *upload) restore() error {
	if u.state.hash != nil {
		return nil
	}
	algorithm, _, _ := strings.Cut(u.id, "-")
	return u.rehash(digest.Algorithm(algorithm))
}

// rehash computes the hash state from the file.
func (u *upload) rehash(algorithm digest.Algorithm) error {
	if _, err := u.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	u.state.hash = algorithm.Hash()
	size, err := io.Copy(u.state.hash, u.file)
	u.state.size = size
	return err
}

func (u *upload) ID() string { return u.id }

func (u *upload) Size() int64 { return u.state.size }

// Write appends p. Where it fails half-way, what was taken is what Size says.
func (u *upload) Write(p []byte) (int, error) {
	n, err := u.file.WriteAt(p, u.state.size)
	u.state.hash.Write(p[:n])
	u.state.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("upload %s: %w", u.id, err)
	}
	return n, nil
}

// ReadFrom appends all of r in large steps.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	type onlyWriter struct{ io.Writer }
	return io.CopyBuffer(onlyWriter{u}, struct{ io.Reader }{r}, make([]byte, copyBuffer))
}

func (u *upload) Commit(ctx context.Context, d digest.Digest) (v1.Descriptor, error) {
	if u.over {
		return v1.Descriptor{}, u.repo.unknownUpload(u.id)
	}
	if err := u.matches(d); err != nil {
		u.drop()
		return v1.Descriptor{}, err
	}
	if err := u.place(d); err != nil {
		u.drop()
		return v1.Descriptor{}, fmt.Errorf("store blob %s: %w", d, err)
	}
	size := u.state.size
	u.forget()
	err := u.repo.layout.writer.commit(ctx, change{write: func(tx *bolt.Tx, _ uint64) error {
		return errors.Join(put(tx, bucketBlobs, key(string(d)), blobRecord{Size: size}), addMember(tx, u.repo.name, d))
	}})
	return v1.Descriptor{MediaType: octetStream, Digest: d, Size: size}, err
}

// matches compares what arrived with the digest. A client that did not announce another algorithm
// than sha256 costs one more reading.
func (u *upload) matches(d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	if !strings.HasPrefix(u.id, d.Algorithm().String()+"-") {
		if err := u.rehash(d.Algorithm()); err != nil {
			return err
		}
	}
	if got := digest.NewDigest(d.Algorithm(), u.state.hash); got != d {
		return fmt.Errorf("upload to %s: %w: %d bytes arrived that hash to %s, not to %s", u.repo.name, berth.ErrDigestInvalid, u.state.size, got, d)
	}
	return nil
}

// place flushes the bytes and gives them their name. A file that has the name already is replaced:
// it holds the same bytes, unless it was damaged, and then this mends it.
func (u *upload) place(d digest.Digest) error {
	dir := u.repo.layout.dir
	if err := dir.SyncFile(u.file, u.path); err != nil {
		return err
	}
	if err := dir.MkdirAll(v1.ImageBlobsDir+"/"+d.Algorithm().String(), 0o755); err != nil {
		return err
	}
	return dir.Rename(u.path, blobPath(d))
}

func (u *upload) Close() error {
	if u.over {
		return nil
	}
	u.over = true
	err := u.file.Close()
	u.repo.layout.uploads.release(u.path, u.state)
	return err
}

func (u *upload) Cancel(context.Context) error {
	if !u.over {
		u.drop()
	}
	return nil
}

// drop ends the upload: its file, and its state. The file goes first, so that who waits for the
// upload finds it gone; and it is closed before, because not every system removes an open file.
func (u *upload) drop() {
	u.file.Close()
	u.repo.layout.dir.Root().Remove(u.path)
	u.forget()
}

// forget lets go of all but the file.
func (u *upload) forget() {
	u.over = true
	if u.file != nil {
		u.file.Close()
	}
	u.state.hash = nil
	u.repo.layout.uploads.release(u.path, u.state)
}

// sweepIngest throws away what nobody will come back for.
func (l *Layout) sweepIngest() error {
	dir, err := l.dir.Root().Open(ingestPath)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || (!strings.HasPrefix(e.Name(), durable.TempPrefix) && time.Since(info.ModTime()) < abandonedAfter) {
			continue
		}
		l.log.Info("abandoned upload removed", "file", e.Name(), "bytes", info.Size())
		l.dir.Root().Remove(ingestPath + "/" + e.Name())
	}
	return nil
}
