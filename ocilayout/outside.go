package ocilayout

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// indexFile is what one reading of an index.json found. Its entries are not kept: they may be many.
type indexFile struct {
	projected        // Generation: what the file was based on
	layout    string // the id of the layout that it was written for
	says      bool   // that it was based on that generation
	untouched bool
	others    map[string]string // annotations that are not ours
}

// maxGeneration is far beyond what any index reaches. A file that names more is not believed.
const maxGeneration = 1 << 60

var errNoIndexFile = fmt.Errorf("%w: it is no image index", berth.ErrLayoutInvalid)

// readIndexFile reads an index.json and calls visit, which may be nil, with each entry.
func (l *Layout) readIndexFile(name string, visit func(json.RawMessage) error) (*indexFile, error) {
	f, err := l.openRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	whole := sha256.New()
	in := io.TeeReader(bufio.NewReaderSize(f, copyBuffer), whole)
	found, err := parseIndexFile(json.NewDecoder(in), visit)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	found.Stamp, found.Checksum = durable.StampOf(info), hex.EncodeToString(whole.Sum(nil))
	return found, nil
}

func parseIndexFile(dec *json.Decoder, visit func(json.RawMessage) error) (*indexFile, error) {
	var annotations map[string]string
	list := &listWriter{w: io.Discard, sum: sha256.New()}
	if err := expect(dec, '{'); err != nil {
		return nil, err
	}
	index := false
	for dec.More() {
		field, err := dec.Token()
		if err != nil {
			return nil, broken(err)
		}
		index = index || field == "manifests" || field == "schemaVersion"
		switch field {
		case "manifests":
			err = parseEntries(dec, list, visit)
		case "annotations":
			err = broken(dec.Decode(&annotations))
		default:
			err = broken(dec.Decode(new(json.RawMessage)))
		}
		if err != nil {
			return nil, err
		}
	}
	if err := expect(dec, '}'); err != nil {
		return nil, err
	}
	if !index {
		return nil, errNoIndexFile
	}
	sum, _ := list.end()
	found := &indexFile{layout: annotations[annotationLayout], untouched: annotations[annotationChecksum] == sum, others: othersAnnotations(annotations)}
	if gen, err := strconv.ParseUint(annotations[annotationGeneration], 10, 64); err == nil && gen < maxGeneration {
		found.Generation, found.says = gen, true
	}
	return found, nil
}

func parseEntries(dec *json.Decoder, list *listWriter, visit func(json.RawMessage) error) error {
	begin, err := dec.Token()
	if err != nil || begin == nil {
		return broken(err)
	}
	if begin != json.Delim('[') {
		return fmt.Errorf("%w: its manifests are no list", errNoIndexFile)
	}
	for dec.More() {
		var entry json.RawMessage
		if err := dec.Decode(&entry); err != nil {
			return broken(err)
		}
		list.put(append(list.separator(), entry...))
		if visit == nil {
			continue
		}
		if err := visit(entry); err != nil {
			return err
		}
	}
	return expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err != nil {
		return broken(err)
	}
	if token != want {
		return errNoIndexFile
	}
	return nil
}

// broken says that a file does not parse, and not what is in it.
func broken(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: it does not parse as JSON (%w)", berth.ErrLayoutInvalid, err)
}

// mergeOutside takes in what another program wrote to index.json. A file that does not parse may be
// one that is being written: it is replaced, and looked at again for some time, as every file that was
// index.json. An index that knows nothing cannot replace it.
func (p *publisher) mergeOutside(ctx context.Context) error {
	if p.unchanged() {
		return nil
	}
	_, now, err := p.mergeFile(ctx, v1.ImageIndexFile, p.last)
	if errors.Is(err, berth.ErrLayoutInvalid) {
		fresh, freshErr := p.isFresh()
		if fresh || freshErr != nil {
			return errors.Join(err, freshErr)
		}
		p.wake()
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		now, err = projected{}, p.mayReplace() // to be made anew
	}
	if err == nil {
		p.last = now
	}
	return err
}

// mayReplace refuses to put an empty index.json in the place of something that is no file, and may lead to
// all that the layout holds.
func (p *publisher) mayReplace() error {
	info, err := p.layout.dir.Root().Lstat(v1.ImageIndexFile)
	if err != nil || info.Mode().IsRegular() {
		return nil
	}
	if fresh, err := p.isFresh(); err != nil || !fresh {
		return err
	}
	return fmt.Errorf("%w: %s is a %s; put the file itself there", berth.ErrLayoutInvalid, p.layout.path(v1.ImageIndexFile), kindOf(info.Mode()))
}

// mergeFile merges an index.json, under whatever name it has now, that was last known to be so. It
// returns what it is now, and whether anything was merged.
func (p *publisher) mergeFile(ctx context.Context, name string, known projected) (merged bool, now projected, err error) {
	file, err := p.readSettled(ctx, name)
	if err != nil {
		return false, known, err
	}
	now = file.projected
	if file.Checksum == known.Checksum {
		now.Generation = known.Generation
		return false, now, nil
	}
	is, err := p.whatIs()
	if err != nil {
		return false, known, err
	}
	// One of ours that is newer than the index tells that the index has lost its last changes.
	if !file.untouched || file.layout != is.layout || file.Generation > is.generation || is.generation == 0 || !maps.Equal(file.others, is.others) {
		if err := p.merge(ctx, name, file, known.Generation); err != nil {
			return false, known, fmt.Errorf("merge %s: %w", p.layout.path(name), err)
		}
		merged, now.Generation = true, 0 // nobody has projected this one
		p.wake()
	}
	return merged, now, nil
}

// readSettled reads an index.json that another program may be writing at this moment.
func (p *publisher) readSettled(ctx context.Context, name string) (file *indexFile, err error) {
	const attempts = 4
	for attempt := range attempts {
		file, err = p.layout.readIndexFile(name, nil)
		if !errors.Is(err, berth.ErrLayoutInvalid) || errors.Is(err, errNoIndexFile) {
			break
		}
		select {
		case <-time.After(time.Millisecond << (2 * attempt)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if errors.Is(err, berth.ErrLayoutInvalid) {
		err = fmt.Errorf("%s: %w", p.layout.path(name), err)
	}
	return file, err
}

// isFresh reports whether the index has never been written to: then index.json is all there is.
func (p *publisher) isFresh() (bool, error) {
	gen, err := p.generation()
	return gen == 0, err
}
