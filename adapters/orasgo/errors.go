package orasgo

import (
	"errors"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/berthoci/berth"
)

// known are the errors of berth that are others in oras-go. By the last one a copy notices that it has to bring
// the children of a manifest once more.
var known = []struct{ berth, oras error }{
	{berth.ErrBlobUnknown, errdef.ErrNotFound},
	{berth.ErrManifestUnknown, errdef.ErrNotFound},
	{berth.ErrNameUnknown, errdef.ErrNotFound},
	{berth.ErrTagInvalid, errdef.ErrInvalidReference},
	{berth.ErrNameInvalid, errdef.ErrInvalidReference},
	{berth.ErrDigestInvalid, content.ErrMismatchedDigest},
	{berth.ErrSizeInvalid, errdef.ErrSizeExceedsLimit},
	{berth.ErrUnsupported, errdef.ErrUnsupported},
	{berth.ErrManifestBlobUnknown, errcode.Error{Code: errcode.ErrorCodeManifestBlobUnknown}},
}

// both is an error with the text of one and the meaning of two.
type both struct {
	error
	other error
}

func (b both) Unwrap() []error { return []error{b.error, b.other} }

// outward makes an error of berth one of oras-go's, too.
func outward(err error) error {
	for _, pair := range known {
		if errors.Is(err, pair.berth) {
			return both{err, pair.oras}
		}
	}
	return err
}

// isMissing reports whether berth has no such content.
func isMissing(err error) bool {
	return errors.Is(err, berth.ErrBlobUnknown) || errors.Is(err, berth.ErrManifestUnknown) || errors.Is(err, berth.ErrNameUnknown)
}
