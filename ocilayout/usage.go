package ocilayout

import (
	"context"

	"github.com/berthoci/berth"
)

// Usage tells how much the layout holds, by its index: it reads no file, and every record.
func (l *Layout) Usage(ctx context.Context) (u berth.Usage, err error) {
	if l.life.Err() != nil {
		return u, ErrClosed
	}
	repositories, files := map[string]bool{}, newDigestSet()
	for e, err := range pages(ctx, l.db, span{bucket: bucketManifests}, readManifestEntry) {
		if err != nil {
			return u, err
		}
		if e.digest != "" {
			u.Manifests++
			repositories[e.repo] = true
			if file := e.rec.file(e.digest); !files.has(file.Digest) {
				files.add(file.Digest)
				u.Blobs++
				u.Bytes += file.Size
			}
		}
	}
	u.Repositories = len(repositories)
	for _, err := range pages(ctx, l.db, span{bucket: bucketTags}, func(_, _ []byte) (none struct{}, err error) { return none, nil }) {
		if err != nil {
			return u, err
		}
		u.Tags++
	}
	for e, err := range pages(ctx, l.db, span{bucket: bucketBlobs}, readBlobEntry) {
		if err != nil {
			return u, err
		}
		if e.digest != "" && !files.has(e.digest) {
			u.Blobs++
			u.Bytes += e.blob.Size
		}
	}
	return u, nil
}
