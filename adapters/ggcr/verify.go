package ggcr

import (
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// verifier reads a blob, and reports io.EOF only if all of it came and nothing else.
type verifier struct {
	io.ReadCloser
	want digest.Digest
	hash hash.Hash
	left int64
}

// newVerifier takes a digest of an algorithm that is available.
func newVerifier(content io.ReadCloser, want digest.Digest, size int64) *verifier {
	return &verifier{content, want, want.Algorithm().Hash(), size}
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	v.left -= int64(n)
	switch {
	case v.left < 0:
		return n, v.failed("%d bytes more came than it has", -v.left)
	case !errors.Is(err, io.EOF):
		return n, err
	case v.left > 0:
		return n, v.failed("it ended %d bytes early", v.left)
	}
	if got := digest.NewDigest(v.want.Algorithm(), v.hash); got != v.want {
		return n, v.failed("what came hashes to %s", got)
	}
	return n, io.EOF
}

func (v *verifier) failed(format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", v.want, berth.ErrDigestInvalid, fmt.Sprintf(format, args...))
}
