package remote

import (
	"errors"
	"net/http"
	"time"

	"github.com/berthoci/berth"
)

// recover decides what follows on a failure: nothing, which is the error, or another try after a while.
//
//   - What has broken off goes on from where the registry says that it is: after an error of the connection, of the server, and
//     one that says that the range was wrong.
//   - An upload that the registry does not know any more is begun anew.
//   - A token that has ended during a request is renewed by the question how far the upload is; if all was in vain, for the
//     registry keeps nothing of what it refuses, the blob goes in chunks, smaller ones each time.
//   - A blob that is too large for one request goes in chunks from then on.
func (p *push) recover(err error) (time.Duration, error) {
	r := p.repo.registry
	if r.patience < 0 || !p.mayGoOn(err) {
		return 0, err
	}
	if p.setbacks++; p.setbacks > maxSetbacks || time.Since(p.moved) > r.patience {
		return 0, err
	}
	return backoff(p.setbacks - 1), nil
}

func (p *push) mayGoOn(err error) bool {
	var refused *Error
	var network *NetworkError
	switch {
	case errors.Is(err, errTooMany):
		p.opts.Upload, p.up = "", nil
		return true
	case errors.As(err, &network):
		return p.up != nil // what could not begin was tried often enough
	case !errors.As(err, &refused) || p.up == nil:
		return false
	}
	switch refused.Status {
	case http.StatusUnauthorized:
		return p.authorizeAnew()
	case http.StatusRequestEntityTooLarge:
		return p.cut()
	case http.StatusNotFound:
		p.up = nil
		return true
	case http.StatusBadRequest:
		return p.startOver(err)
	case http.StatusRequestedRangeNotSatisfiable, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	}
	return faulty(refused.Status)
}

// authorizeAnew is what to do about a token that was good when the request began. One that is refused with the question
// how far the upload is, or without anything having been sent, is simply not good.
func (p *push) authorizeAnew() bool {
	if !p.lost || p.desc.Size <= maxResent {
		return false
	}
	return p.setbacks == 0 || p.cut()
}

// cut has blobs sent in smaller chunks. It reports whether they can be.
func (p *push) cut() bool {
	learnt := &p.repo.registry.learnt.chunk
	chunk := learnt.Load()
	switch {
	case p.repo.registry.quirks.whole || chunk > 0 && chunk <= minChunk:
		return false
	case chunk == 0:
		chunk = min(maxChunk, max(minChunk, p.desc.Size/2))
	default:
		chunk = max(minChunk, chunk/4)
	}
	learnt.Store(chunk)
	return true
}

// startOver forgets an upload that has come to be something else than was meant, if it was not begun in this push alone.
func (p *push) startOver(err error) bool {
	whole := p.setbacks == 0 && p.opts.Upload == ""
	p.opts.Upload = ""
	if whole || !errors.Is(err, berth.ErrDigestInvalid) && !errors.Is(err, berth.ErrUploadInvalid) {
		return false
	}
	p.up = nil
	return true
}
