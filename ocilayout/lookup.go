package ocilayout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest"
)

// target is what a reference leads to.
type target struct {
	desc v1.Descriptor // as clients know it
	file v1.Descriptor // of what is served: another file than desc's where the manifest is signed
}

func (r *repository) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	at, err := r.find(ctx, ref)
	return at.desc, err
}

// find looks a reference up, once more where another program may have just made it.
func (r *repository) find(ctx context.Context, ref string) (target, error) {
	at, err := r.lookUp(ref)
	if errors.Is(err, berth.ErrManifestUnknown) && r.layout.publisher.refresh(ctx) {
		at, err = r.lookUp(ref)
	}
	if err != nil {
		return at, err
	}
	return at, r.layout.recent.touch(ctx, at.desc.Digest)
}

func (r *repository) lookUp(ref string) (at target, err error) {
	name := qualified{r.name, ref}
	at, version, found := r.layout.cache.target(name)
	if found {
		return at, nil
	}
	if err := ocirequest.ValidateReference(ref); err != nil {
		return at, err
	}
	err = r.layout.db.View(func(tx *bolt.Tx) error {
		at, err = resolve(tx, r.name, ref)
		return err
	})
	if err == nil {
		r.layout.cache.keepTarget(name, at, version)
	}
	return at, err
}

// resolve finds a manifest by tag or digest. Its descriptor has no annotations: those of a tag
// belong to the layout's index.json.
func resolve(tx *bolt.Tx, repo, ref string) (at target, err error) {
	d := digest.Digest(ref)
	if !ocirequest.IsDigest(ref) {
		var tag tagRecord
		found, err := get(tx, bucketTags, key(repo, ref), &tag)
		if err != nil {
			return at, err
		}
		if !found {
			return at, unknownManifest(repo, ref)
		}
		d = tag.Descriptor.Digest
	}
	var rec manifestRecord
	found, err := get(tx, bucketManifests, key(repo, string(d)), &rec)
	if err == nil && !found {
		err = unknownManifest(repo, ref)
	}
	return target{rec.served(d), rec.file(d)}, err
}

func (r *repository) FetchManifest(ctx context.Context, ref string, opts *berth.FetchOptions) (berth.Manifest, error) {
	at, err := r.find(ctx, ref)
	if err != nil || !opts.Within(at.desc.Size) {
		return berth.Manifest{Descriptor: at.desc}, err
	}
	raw, found := r.layout.cache.content(at.file.Digest)
	if !found {
		if raw, err = r.layout.readManifest(at.file); err != nil {
			r.layout.log.Warn("manifest cannot be served", "repository", r.name, "digest", at.desc.Digest, "err", err)
			return berth.Manifest{}, fmt.Errorf("%w: %w", unknownManifest(r.name, ref), err)
		}
		r.layout.cache.keepContent(at.file.Digest, raw)
	}
	r.layout.uses.note(r.name, at.desc.Digest)
	return berth.Manifest{Descriptor: at.desc, Raw: raw}, nil
}

// readManifest reads a manifest's file and believes it only if it is what the descriptor says.
func (l *Layout) readManifest(desc v1.Descriptor) ([]byte, error) {
	f, err := l.openRegular(blobPath(desc.Digest), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content := bytes.NewBuffer(make([]byte, 0, min(max(desc.Size, 0), berth.MaxManifestSize)+bytes.MinRead))
	if _, err := content.ReadFrom(io.LimitReader(f, berth.MaxManifestSize+1)); err != nil {
		return nil, err
	}
	raw := content.Bytes()
	if len(raw) > berth.MaxManifestSize {
		return nil, fmt.Errorf("%s: its file cannot be a manifest", desc.Digest)
	}
	if err := manifest.Verify(desc, raw); err != nil {
		return nil, fmt.Errorf("its file is damaged: %d bytes, not what %s names", len(raw), desc.Digest)
	}
	return raw, nil
}
