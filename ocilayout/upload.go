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
	// maxStates bounds what is kept in memory of uploads between two requests; an upload whose state was dropped is
	// hashed once more from its file.
	maxStates = 1024
	// copyBuffer is the step in which index.json is read and written.
	copyBuffer = 256 << 10
	// smallUpload is up to how many bytes are kept in memory until the upload is committed or left:
	// most blobs are small, and then cost one file and no more.
	smallUpload = 64 << 10
	// writeAhead is how many bytes of a large upload are handed to the disk at once, so that a flush
	// at the end finds little to do.
	writeAhead = 8 << 20
	// reserveAhead is the step in which a large upload asks for room on the disk.
	reserveAhead = 16 << 20
	// uploadPatience is how long a request waits for another that has the upload.
	uploadPatience = 10 * time.Second
)

var errUploadHeld = fmt.Errorf("%w: another request is writing to it", berth.ErrUploadInvalid)

var uploadID = lazily(`^(sha256|sha384|sha512)-[a-z2-7]{26}$`)

// lazily compiles an expression when it is first needed: the start of each process would pay for it else.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// uploadTable holds what is known of uploads beyond their files. A file alone is enough to resume
// one: its name tells repository and algorithm, its length the offset. One that was left before anything
// arrived has no file yet: most get all their bytes in the next request, and a file then.
type uploadTable struct {
	mu sync.Mutex // guards the fields below, and the users of every state
	// swept is when abandoned files were last looked for.
	swept time.Time
	// resting is how many uploads may be left for later, at most: it is counted anew where it matters.
	resting int
	// live maps an upload's path to its state.
	live map[string]*uploadState
}

// uploadState is what would have to be read from the file again.
type uploadState struct {
	// held is full while a caller has the upload, which alone touches hash and size.
	held chan struct{}
	hash hash.Hash // nil where nothing is kept
	size int64
	// empty is since when it rests without a byte, and so without a file; zero: it does not.
	empty time.Time
	// users counts the caller who has the upload and those who wait for it.
	users int
}

// take waits until nobody else has the upload and returns its state, which is empty where none was
// kept. A client that lost its connection comes back before the server has noticed the loss, and one
// that asks how far an upload is must not turn away the one that writes: so they take turns.
func (t *uploadTable) take(ctx context.Context, path string) (*uploadState, error) {
	state := t.join(path)
	select {
	case state.held <- struct{}{}:
		return state, nil
	default:
	}
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
	if state.users == 0 && state.empty.IsZero() && (state.hash == nil || len(t.live) > maxStates) {
		delete(t.live, path)
	}
}

// release gives a taken upload to the next who waits for it.
func (t *uploadTable) release(path string, state *uploadState) {
	t.leave(path, state)
	<-state.held
}

// upload is a file in ingest/ that one caller is appending to. As long as all of it is in memory
// there is no file.
type upload struct {
	repo   *repository
	id     string
	path   string
	small  []byte   // what has arrived, while there is no file
	file   *os.File // nil: all is in small
	direct direct
	ahead  int64 // up to here the disk was told to write
	room   int64 // up to here room was asked for
	state  *uploadState
	writer io.Writer
	// shared: the file has its bytes in common with another one, and there is nothing to be written to the disk.
	shared bool
	// unsound: the hash is not that of what the file holds.
	unsound bool
	over    bool
}

func (r *repository) NewUpload(ctx context.Context, opts *berth.UploadOptions) (berth.Upload, error) {
	if opts == nil {
		opts = &berth.UploadOptions{}
	}
	if opts.Mount != "" {
		mounted, err := r.mount(ctx, opts)
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
	id := newUploadID(algorithm)
	up, err := r.beginUpload(ctx, id, r.uploadPath(id))
	if err != nil {
		return nil, err
	}
	return up, nil
}

func newUploadID(algorithm digest.Algorithm) string {
	return algorithm.String() + "-" + strings.ToLower(rand.Text())
}

// beginUpload needs no file yet. The path is where it will lie.
func (r *repository) beginUpload(ctx context.Context, id, path string) (*upload, error) {
	if err := r.layout.admitUpload(); err != nil {
		return nil, err
	}
	if err := r.layout.throttle(ctx); err != nil {
		return nil, err
	}
	up := &upload{repo: r, id: id, path: path}
	var err error
	if up.state, err = r.layout.uploads.take(ctx, up.path); err != nil {
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	algorithm, _, _ := strings.Cut(id, "-")
	up.state.hash = digest.Algorithm(algorithm).Hash()
	return up, nil
}

func (r *repository) ResumeUpload(ctx context.Context, id string) (berth.Upload, error) {
	if !uploadID().MatchString(id) {
		return nil, r.unknownUpload(id)
	}
	up := &upload{repo: r, id: id, path: r.uploadPath(id)}
	var err error
	if up.state, err = r.layout.uploads.take(ctx, up.path); err != nil {
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	if r.layout.uploads.takeEmpty(up.state) {
		return up, nil
	}
	up.file, err = r.layout.openRegular(up.path, os.O_RDWR)
	if err == nil {
		err = up.restore()
	}
	if err == nil {
		return up, nil
	}
	up.forget()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.unknownUpload(id)
	}
	return nil, err
}

func (r *repository) unknownUpload(id string) error {
	return fmt.Errorf("%s: %w: %.60q", r.name, berth.ErrUploadUnknown, id)
}

// uploadPath puts the repository into the file's name, so that an upload is found only in the
// repository that it belongs to; hashed, because a name may be longer than a file's may.
func (r *repository) uploadPath(id string) string {
	sum := sha256.Sum256([]byte(r.name))
	return ingestPath + "/" + hex.EncodeToString(sum[:8]) + "." + id
}

// restore makes sure that the hash has seen what the file holds.
func (u *upload) restore() error {
	if u.state.hash == nil {
		algorithm, _, _ := strings.Cut(u.id, "-")
		return u.rehash(digest.Algorithm(algorithm))
	}
	_, err := u.file.Seek(u.state.size, io.SeekStart)
	return err
}

// ready makes the hash sound.
func (u *upload) ready() error {
	if !u.unsound {
		return nil
	}
	algorithm, _, _ := strings.Cut(u.id, "-")
	return u.rehash(digest.Algorithm(algorithm))
}

// rehash computes the hash state from what has arrived.
func (u *upload) rehash(algorithm digest.Algorithm) error {
	u.state.hash = algorithm.Hash()
	if u.file == nil {
		u.state.hash.Write(u.small)
		return nil
	}
	_, err := u.file.Seek(0, io.SeekStart)
	if err == nil {
		u.state.size, err = u.hashFile(u.file)
	}
	u.unsound = err != nil
	return err
}

func (u *upload) ID() string { return u.id }

func (u *upload) Size() int64 { return u.state.size }

// Write appends p. Where it fails half-way, what was taken is what Size says.
func (u *upload) Write(p []byte) (n int, err error) {
	if err := u.ready(); err != nil {
		return 0, err
	}
	if u.file == nil && len(u.small)+len(p) <= smallUpload {
		u.small = append(u.small, p...)
		n = len(p)
	} else {
		n, err = u.writeFile(p)
	}
	u.state.hash.Write(p[:n])
	u.state.size += int64(n)
	return n, u.failed(err)
}

func (u *upload) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("upload %s: %w", u.id, err)
}

func (u *upload) writeFile(p []byte) (int, error) {
	if err := u.createFile(); err != nil {
		return 0, err
	}
	if end := u.state.size + int64(len(p)); end > writeAhead && end > u.room {
		u.room = max(u.room, u.state.size)
		durable.Reserve(u.file, u.room, reserveAhead)
		u.room += reserveAhead
	}
	n, err := u.put(p)
	if err != nil {
		// The file's offset is where the bytes that were taken end, whatever the system did.
		u.file.Truncate(u.state.size + int64(n))
		u.file.Seek(u.state.size+int64(n), io.SeekStart)
	}
	if reached := u.state.size + int64(n); reached-u.ahead >= writeAhead && u.direct.file == nil {
		durable.StartSync(u.file, u.ahead, reached-u.ahead)
		u.ahead = reached
	}
	return n, err
}

// createFile puts what is in memory into a file, if it is not in one.
func (u *upload) createFile() (err error) {
	dir := u.repo.layout.dir
	if u.file == nil {
		if u.file, err = dir.Create(u.path, 0o644); err != nil {
			return err
		}
		if _, err := dir.Writer(u.file, u.path).Write(u.small); err != nil {
			u.file.Close()
			dir.Root().Remove(u.path)
			u.file = nil
			return err
		}
		u.small = nil
	}
	if u.writer == nil {
		u.writer = dir.Writer(u.file, u.path)
	}
	return nil
}

func (u *upload) Commit(ctx context.Context, d digest.Digest) (v1.Descriptor, error) {
	if u.over {
		return v1.Descriptor{}, u.repo.unknownUpload(u.id)
	}
	if err := u.matches(d); err != nil {
		u.drop()
		return v1.Descriptor{}, err
	}
	release, err := u.repo.layout.recent.hold(ctx, d) // before the writer is entered: who removes d needs it too
	if err != nil {
		u.drop()
		return v1.Descriptor{}, err
	}
	defer release()
	leave, err := u.repo.layout.writer.enter(ctx)
	if err != nil {
		u.drop()
		return v1.Descriptor{}, err
	}
	defer leave()
	if err := u.place(d); err != nil {
		u.drop()
		return v1.Descriptor{}, fmt.Errorf("store blob %s: %w", d, err)
	}
	size := u.state.size
	u.forget()
	// The file has its name, and so the index is told of it, whatever becomes of the caller.
	err = u.repo.layout.writer.commitAlways(context.WithoutCancel(ctx), change{
		hidden: true,
		folder: u.repo.layout.folderToFlush(d),
		write: func(tx *bolt.Tx, _ uint64) error {
			return errors.Join(put(tx, bucketBlobs, key(string(d)), blobRecord{Size: size}), addMember(tx, u.repo.name, d))
		},
	})
	return v1.Descriptor{MediaType: octetStream, Digest: d, Size: size}, err
}

// matches compares what arrived with the digest. A client that did not announce another algorithm
// than sha256 costs one more reading.
func (u *upload) matches(d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	if u.unsound || !strings.HasPrefix(u.id, d.Algorithm().String()+"-") {
		if err := u.rehash(d.Algorithm()); err != nil {
			return err
		}
	}
	if got := digest.NewDigest(d.Algorithm(), u.state.hash); got != d {
		return fmt.Errorf("upload to %s: %w: %d bytes arrived that hash to %s, not to %s", u.repo.name, berth.ErrDigestInvalid, u.state.size, got, d)
	}
	return nil
}

// place gives the bytes their name.
func (u *upload) place(d digest.Digest) error {
	if err := u.createFile(); err != nil {
		return err
	}
	if u.room > u.state.size {
		if err := u.file.Truncate(u.state.size); err != nil {
			return err
		}
	}
	unflushed := u.state.size
	if u.shared {
		unflushed = 0
	}
	return u.repo.layout.place(u.file, u.path, d, unflushed)
}

func (u *upload) Close() error {
	if u.over {
		return nil
	}
	if !u.keepEmpty() {
		if err := u.createFile(); err != nil {
			u.drop()
			return err
		}
	}
	u.over = true
	u.repo.layout.uploads.left()
	err := u.closeFile()
	if u.unsound {
		u.state.hash = nil
	}
	u.repo.layout.uploads.release(u.path, u.state)
	return err
}

// keepEmpty leaves the upload without a file, if nothing has arrived and not too many are left like that.
func (u *upload) keepEmpty() bool {
	return u.file == nil && len(u.small) == 0 && u.repo.layout.uploads.keepEmpty(u.state)
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
	if u.file != nil {
		u.closeFile()
		u.repo.layout.dir.Root().Remove(u.path)
	}
	u.forget()
}

func (u *upload) closeFile() error {
	if u.file == nil {
		return nil
	}
	u.direct.end()
	return u.file.Close()
}

// forget lets go of all but the file.
func (u *upload) forget() {
	u.over = true
	u.closeFile()
	u.state.hash = nil
	u.repo.layout.uploads.release(u.path, u.state)
}
