package sync

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/durable"
)

const (
	// trusted is how long it is believed that a remote registry still has what it was brought: it may collect what no
	// manifest leads to.
	trusted = 24 * time.Hour
	// maxJournal is from how many bytes on a journal is written anew, without what is of no use any more.
	maxJournal = 1 << 20
	// maxKnown bounds the blobs that are known of a repository: those of thousands of images.
	maxKnown = 1 << 18
	// maxRecord bounds one line of a journal, in bytes.
	maxRecord = 16 << 10
)

// Memory is what is known of a remote registry from what was brought to it: which blobs and manifests its repositories have,
// what their tags were set to, and which uploads were begun. It is believed until the registry says something else.
//
// It is a journal, a file to which each fact is appended before anything else happens, so that who is killed goes on where
// they were. A line that was cut off, or says what is not understood, is passed over. Several processes may append to one
// journal; what one of them learns the others know when they open it. The zero value knows nothing, and keeps what it learns for
// as long as it is used. Its methods may run at once.
type Memory struct {
	uploads bool // nothing else is remembered

	mu           sync.Mutex // guards the fields below
	file         *os.File   // nil: it is not kept
	repositories map[string]*knowledge
	holders      map[digest.Digest]string // a repository that has a blob
}

// knowledge is about one repository.
type knowledge struct {
	blobs     map[digest.Digest]known
	manifests map[digest.Digest]known
	tags      map[string]known
	uploads   map[digest.Digest]string
}

type known struct {
	digest digest.Digest
	size   int64
	at     time.Time
}

func (k known) fresh() bool { return time.Since(k.at) < trusted }

// record is a line of the journal. What it is about is told by what it has.
type record struct {
	Repository string        `json:"repository"`
	Blob       digest.Digest `json:"blob,omitempty"`
	Size       int64         `json:"size,omitempty"`
	Upload     string        `json:"upload,omitempty"` // of the blob, which has not come yet
	Manifest   digest.Digest `json:"manifest,omitempty"`
	Tag        string        `json:"tag,omitempty"` // set to the manifest; without one it is gone
	Forget     bool          `json:"forget,omitempty"`
	At         int64         `json:"at"` // in seconds since 1970
}

// OpenMemory reads a journal, which is made if it is not there. It is closed by Close.
func OpenMemory(path string) (*Memory, error) { return (&Memory{}).open(path) }

// OpenUploads is OpenMemory for what is remembered of uploads alone: of a registry that is near enough to be asked about all
// else.
func OpenUploads(path string) (*Memory, error) { return (&Memory{uploads: true}).open(path) }

func (m *Memory) open(path string) (*Memory, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	size, err := m.load(path)
	if err != nil {
		return nil, fmt.Errorf("sync journal %s: %w; it may be removed", path, err)
	}
	if size > maxJournal {
		if err := durable.WriteFile(path, m.encode(), 0o600); err != nil {
			return nil, err
		}
	}
	m.file, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return m, err
}

// load reads what a journal says.
func (m *Memory) load(path string) (int64, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file") // a pipe would be waited for, and what a link leads to written to
	}
	if err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, maxRecord)
	size := int64(0)
	for {
		line, err := lines.ReadSlice('\n')
		size += int64(len(line))
		switch {
		case err == nil:
			var r record
			if json.Unmarshal(line, &r) == nil {
				m.learn(r)
			}
		case errors.Is(err, io.EOF):
			return size, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return size, err
		}
	}
}

// encode writes a journal that says what is known and believed. What a tag was set to is of use however long ago that was.
func (m *Memory) encode() []byte {
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	for name, k := range m.repositories {
		lines.Encode(record{Repository: name})
		for d, b := range k.blobs {
			if b.fresh() {
				lines.Encode(record{Repository: name, Blob: d, Size: b.size, At: b.at.Unix()})
			}
		}
		for d, u := range k.uploads {
			lines.Encode(record{Repository: name, Blob: d, Upload: u})
		}
		for d, b := range k.manifests {
			if b.fresh() {
				lines.Encode(record{Repository: name, Manifest: d, At: b.at.Unix()})
			}
		}
		for tag, b := range k.tags {
			lines.Encode(record{Repository: name, Tag: tag, Manifest: b.digest, At: b.at.Unix()})
		}
	}
	return out.Bytes()
}

// Close ends the journal. What is known is known until the memory is no longer used.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}

// note appends a fact, and knows it. That it cannot be written is no reason to stop: it is what is not known then.
func (m *Memory) note(r record) {
	r.At = time.Now().Unix()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.learn(r) || m.file == nil {
		return
	}
	if line, err := json.Marshal(r); err == nil && len(line) < maxRecord {
		m.file.Write(append(line, '\n'))
	}
}

// learn takes a fact in, and reports whether that was any news to be kept. The caller holds mu, or is alone.
func (m *Memory) learn(r record) bool {
	if m.uploads && m.repositories[r.Repository].upload(r.Blob) == "" && r.Upload == "" {
		return false
	}
	if m.repositories == nil {
		m.repositories, m.holders = map[string]*knowledge{}, map[digest.Digest]string{}
	}
	k := m.repositories[r.Repository]
	if k == nil || r.Forget {
		k = &knowledge{map[digest.Digest]known{}, map[digest.Digest]known{}, map[string]known{}, map[digest.Digest]string{}}
		m.repositories[r.Repository] = k
	}
	at := known{r.Manifest, r.Size, time.Unix(r.At, 0)}
	switch {
	case r.Blob != "" && r.Upload != "":
		k.uploads[r.Blob] = r.Upload
	case r.Blob != "":
		delete(k.uploads, r.Blob)
		if !m.uploads && len(k.blobs) < maxKnown {
			k.blobs[r.Blob] = at
			m.holders[r.Blob] = r.Repository
		}
	case r.Tag != "" && r.Manifest == "":
		delete(k.tags, r.Tag)
	case r.Tag != "":
		k.tags[r.Tag] = at
	case r.Manifest != "":
		k.manifests[r.Manifest] = at
	}
	return true
}

func (k *knowledge) upload(d digest.Digest) string {
	if k == nil {
		return ""
	}
	return k.uploads[d]
}

// about asks what is known of a repository; nil where nothing is.
func (m *Memory) about(repository string, ask func(*knowledge)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.repositories[repository]; k != nil {
		ask(k)
	}
}

// knows reports whether anything was ever brought to a repository.
func (m *Memory) knows(repository string) (is bool) {
	m.about(repository, func(*knowledge) { is = !m.uploads })
	return is
}

func (m *Memory) hasBlob(repository string, desc v1.Descriptor) (has bool) {
	m.about(repository, func(k *knowledge) {
		b, ok := k.blobs[desc.Digest]
		has = ok && b.size == desc.Size && b.fresh()
	})
	return has
}

func (m *Memory) hasManifest(repository string, d digest.Digest) (has bool) {
	m.about(repository, func(k *knowledge) {
		b, ok := k.manifests[d]
		has = ok && b.fresh()
	})
	return has
}

// tag is what a tag was set to; empty where that is not known.
func (m *Memory) tag(repository, tag string) (d digest.Digest) {
	m.about(repository, func(k *knowledge) { d = k.tags[tag].digest })
	return d
}

func (m *Memory) upload(repository string, d digest.Digest) (id string) {
	m.about(repository, func(k *knowledge) { id = k.upload(d) })
	return id
}

// holder is a repository that has a blob, if one is known.
func (m *Memory) holder(desc v1.Descriptor) string {
	m.mu.Lock()
	name := m.holders[desc.Digest]
	m.mu.Unlock()
	if name != "" && !m.hasBlob(name, desc) {
		return ""
	}
	return name
}

func (m *Memory) begun(repository string)  { m.note(record{Repository: repository}) }
func (m *Memory) forget(repository string) { m.note(record{Repository: repository, Forget: true}) }

func (m *Memory) noteBlob(repository string, desc v1.Descriptor) {
	m.note(record{Repository: repository, Blob: desc.Digest, Size: desc.Size})
}
