package remote

import (
	"context"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

// quirks are what is known of a registry that it does not tell.
type quirks struct {
	// host that it is about, as path.Match has patterns.
	host string
	// api is the host that serves the API, where it is another one.
	api string
	// library is put before names of one part.
	library string
	// whole: a blob has to come in one request; chunks after the first are lost without a word.
	whole bool
}

// quirksTable is all that is known by the hosts' names. What a registry shows by how it answers is not in here: see learnt.
func quirksTable() []quirks {
	hub := quirks{api: "registry-1.docker.io", library: "library"}
	return []quirks{
		{host: "docker.io", api: hub.api, library: hub.library},
		{host: "index.docker.io", api: hub.api, library: hub.library},
		{host: "registry-1.docker.io", api: hub.api, library: hub.library},
		{host: "*.dkr.ecr.*.amazonaws.com", whole: true},
		{host: "*.dkr.ecr.*.amazonaws.com.cn", whole: true},
		{host: "*.dkr.ecr-fips.*.amazonaws.com", whole: true},
		{host: "public.ecr.aws", whole: true},
	}
}

func quirksOf(host string) quirks {
	for _, q := range quirksTable() {
		if ok, err := path.Match(q.host, strings.ToLower(host)); err == nil && ok {
			return q
		}
	}
	return quirks{}
}

// learnt is what a registry has shown by its answers. Each is yes, no, or not known yet.
type learnt struct {
	tagParameters answer       // it sets several tags in one request
	referrers     answer       // it has the API for referrers
	conditions    answer       // it keeps to If-Match
	silent        answer       // it does not tell the digest of what was pushed
	whole         answer       // it drops chunks
	chunk         atomic.Int64 // of a blob, in bytes, because it takes no more at once, or no more in the life of a token; zero: all
	most          atomic.Int64 // that a chunk may have, in bytes; zero: not known
}

// answer is one thing that is learnt. Its zero value is that it is not known.
type answer struct {
	state atomic.Int32

	mu     sync.Mutex    // guards the field below
	asking chan struct{} // closed when who finds out is done; nil: nobody does
}

// ask waits until it is known, or until it is the caller's to find out, who calls done after that.
func (a *answer) ask(ctx context.Context) (done func(), err error) {
	for !a.isYes() && !a.isNo() {
		asking := a.begin()
		if asking == nil {
			return a.end, nil
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return func() {}, nil
}

// begin returns what is closed when who finds out is done, or nil where the caller is that now.
func (a *answer) begin() chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asking != nil {
		return a.asking
	}
	a.asking = make(chan struct{})
	return nil
}

func (a *answer) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.asking)
	a.asking = nil
}

const (
	yes int32 = iota + 1
	no
)

func (a *answer) learn(holds bool) {
	if holds {
		a.state.Store(yes)
	} else {
		a.state.Store(no)
	}
}

func (a *answer) isYes() bool { return a.state.Load() == yes }
func (a *answer) isNo() bool  { return a.state.Load() == no }
