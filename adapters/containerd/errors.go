package containerd

import (
	"errors"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// known are the errors of berth that are others in containerd.
var known = []struct{ berth, containerd error }{
	{berth.ErrBlobUnknown, errdefs.ErrNotFound},
	{berth.ErrManifestUnknown, errdefs.ErrNotFound},
	{berth.ErrNameUnknown, errdefs.ErrNotFound},
	{berth.ErrUnauthorized, errdefs.ErrUnauthenticated},
	{berth.ErrDenied, errdefs.ErrPermissionDenied},
	{berth.ErrTooManyRequests, errdefs.ErrResourceExhausted},
	{berth.ErrUnsupported, errdefs.ErrNotImplemented},
}

// both is an error with the text of one and the meaning of two.
type both struct {
	error
	other error
}

func (b both) Unwrap() []error { return []error{b.error, b.other} }

// outward makes an error of berth one of containerd's, too.
func outward(err error) error {
	for _, pair := range known {
		if errors.Is(err, pair.berth) {
			return both{err, pair.containerd}
		}
	}
	return err
}

// isMissing reports whether berth has no such content.
func isMissing(err error) bool {
	return errors.Is(err, berth.ErrBlobUnknown) || errors.Is(err, berth.ErrManifestUnknown) || errors.Is(err, berth.ErrNameUnknown)
}

func checkDigest(d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return both{err, errdefs.ErrInvalidArgument}
	}
	return nil
}
