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
//   - An upload that the registry does not know any more is begun anew, and so is one that cannot go on, or has come to be
//     something else than was meant.
//   - A token that has ended during a request is renewed by the question how far the upload is; if all was in vain, for the
//     registry keeps nothing of what it refuses, the blob goes in chunks, smaller ones each time.
//   - A blob that is too large for one request goes in chunks from then on.
func (p *push) recover(err error) (time.Duration, error) {
	p.mu.Lock()
	if p.moved || p.setbacks == 0 {
		p.since = time.Now()
	}
	p.moved = false
	p.mu.Unlock()
	patience := p.repo.registry.patience
	if patience < 0 || p.setbacks >= maxSetbacks || time.Since(p.since) > patience || !p.mayGoOn(err) {
		return 0, err
	}
	p.setbacks++
	p.troubled = true
	return backoff(p.setbacks - 1), nil
}

func (p *push) mayGoOn(err error) bool {
	var refused *Error
	var network *NetworkError
	switch {
	case errors.Is(err, errTooMany):
		return p.anew()
	case errors.Is(err, errStuck):
		p.atOnce = true
		return p.anew()
	case errors.As(err, &network):
		return p.up != nil && p.goOn() // what could not begin was tried often enough
	case !errors.As(err, &refused) || p.up == nil:
		return false
	}
	switch refused.Status {
	case http.StatusUnauthorized:
		return p.authorizeAnew(err)
	case http.StatusRequestEntityTooLarge:
		return p.limit() && p.goOn()
	case http.StatusNotFound:
		return p.forgotten()
	case http.StatusBadRequest:
		return p.startOver(err)
	case http.StatusMethodNotAllowed, http.StatusNotImplemented: // it cannot say how far an upload is
		return refused.Method == http.MethodGet && p.anew()
	case http.StatusRequestedRangeNotSatisfiable:
		return p.setbacks < maxWrong && p.goOn() || p.anew()
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return p.goOn()
	}
	return faulty(refused.Status) && p.goOn()
}

// maxWrong is how often in a row a registry may refuse the range that it has asked for.
const maxWrong = 3

// goOn continues the upload, unless the registry has to be sent the blob at once.
func (p *push) goOn() bool {
	return p.parts == 0 || !p.whole() || p.anew()
}

// anew has another upload begin, if that has not been done too often.
func (p *push) anew() bool {
	if p.uploads >= maxUploads {
		return false
	}
	p.stale, p.up, p.opts.Upload = p.up, nil, ""
	return true
}

// forgotten is anew for an upload that the registry does not have any more.
func (p *push) forgotten() bool {
	p.up.over = true
	return p.anew()
}

// authorizeAnew is what to do about a token that was good when the request began. One that is refused without anything
// having been sent is simply not good.
func (p *push) authorizeAnew(err error) bool {
	if !p.lost || p.length == 0 || p.desc.Size <= maxResent {
		return false
	}
	p.expired = err
	return p.goOn()
}

// limit has blobs sent in chunks that are smaller than what was too much.
func (p *push) limit() bool {
	if !p.cut() {
		return false
	}
	learnt := &p.repo.registry.learnt
	learnt.most.Store(learnt.chunk.Load())
	return true
}

// cut has blobs sent in smaller chunks. It reports whether they can be smaller than what was sent last.
func (p *push) cut() bool {
	if p.whole() || p.length <= max(minChunk, int64(p.up.least)) {
		return false
	}
	learnt := &p.repo.registry.learnt.chunk
	known := learnt.Load()
	next := min(maxChunk, p.length/2)
	if known > 0 {
		next = p.length / 4
	}
	if known == 0 || known >= p.length { // else another push has found that out
		learnt.CompareAndSwap(known, max(minChunk, next))
	}
	return true
}

// conclude learns from a push that has come to its end: a registry that has lost chunks gets no more of them, and chunks that
// were small because of slow connections are larger again when a blob has come through without trouble.
func (p *push) conclude() {
	learnt := &p.repo.registry.learnt
	if p.atOnce {
		learnt.whole.learn(true)
	}
	known, most := learnt.chunk.Load(), learnt.most.Load()
	if p.troubled || known == 0 || p.parts < 2 {
		return
	}
	next := min(maxChunk, known*2)
	if most > 0 {
		next = min(next, most)
	}
	learnt.chunk.CompareAndSwap(known, next)
}

// startOver forgets an upload that has come to be something else than was meant, if it was sent in more than one part. If these
// were chunks, it goes at once from then on.
func (p *push) startOver(err error) bool {
	mixed := errors.Is(err, berth.ErrDigestInvalid) || errors.Is(err, berth.ErrUploadInvalid) || errors.Is(err, berth.ErrRangeInvalid)
	if !mixed || p.parts < 2 && p.opts.Upload == "" {
		return false
	}
	p.atOnce = p.chunk() > 0
	return p.anew()
}
