package main

import (
	"fmt"
	"io"
	"os"
	gosync "sync"

	"github.com/opencontainers/go-digest"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/berthoci/berth/sdk/sync"
)

// progress shows how blobs travel: on a terminal a bar for each that is on its way, and one for all of them; anywhere else a line
// for each that has come.
type progress struct {
	out  io.Writer
	pool *mpb.Progress
	sent string // what is said of what has been sent

	mu      gosync.Mutex // guards the fields below
	told    map[told]bool
	travels map[travel]*travelling
	total   *mpb.Bar // nil: there was one blob at most
	sum     int64    // bytes of all that travels or has travelled
	come    int64    // of them that have come
}

// travel is a blob that goes to one repository.
type travel struct {
	host, repository string
	digest           digest.Digest
}

// told is what is said once.
type told struct {
	travel
	action sync.Action
}

// travelling is how far one has come.
type travelling struct {
	bar  *mpb.Bar // nil: it has not begun
	come int64
}

func (a *app) progress() *progress {
	p := &progress{out: os.Stderr, sent: string(sync.Sent), told: map[told]bool{}, travels: map[travel]*travelling{}}
	switch {
	case a.json:
		p.out = io.Discard
	case cwriter.IsTerminal(int(os.Stderr.Fd())):
		p.pool = newPool(os.Stderr)
	}
	return p
}

// newPool has bars of what has come leave the others below.
func newPool(out io.Writer) *mpb.Progress {
	return mpb.New(mpb.WithOutput(out), mpb.WithWidth(40), mpb.PopCompletedMode())
}

// event is called from several goroutines.
func (p *progress) event(e sync.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := travel{e.Host, e.Repository, e.Descriptor.Digest}
	once := told{key, e.Action}
	switch {
	case p.pool != nil:
		p.show(key, e)
	case e.Action != "" && !p.told[once]:
		p.told[once] = true
		what := string(e.Action)
		if e.Action == sync.Sent {
			what = p.sent
		}
		fmt.Fprintf(p.out, "%-8s  %s  %s\n", what, short(e.Descriptor.Digest), size(e.Descriptor.Size))
	}
}

// show brings the bars up to date. What was there, or is put in no time, has none.
func (p *progress) show(key travel, e sync.Event) {
	t := p.travels[key]
	if t == nil && (e.Action == sync.Existing || e.Action == sync.Sent) {
		return
	}
	if t == nil {
		t = p.begin(key, e)
	}
	come := e.Bytes
	if e.Action != "" {
		come = e.Descriptor.Size
	}
	p.come += come - t.come
	t.come = come
	if t.bar == nil && come > 0 {
		t.bar = p.newBar(short(key.digest), e.Descriptor.Size)
	}
	if t.bar != nil {
		t.bar.SetCurrent(come)
	}
	if t.bar != nil && e.Action != "" {
		t.bar.SetTotal(e.Descriptor.Size, true)
	}
	if p.total != nil {
		p.total.SetTotal(p.sum, false)
		p.total.SetCurrent(p.come)
	}
}

// begin takes in a blob that is to travel. With the second one there is a bar for all.
func (p *progress) begin(key travel, e sync.Event) *travelling {
	t := &travelling{}
	p.travels[key] = t
	p.sum += e.Descriptor.Size
	if p.total == nil && len(p.travels) > 1 {
		p.total = p.newBar("all", 0, mpb.BarPriority(maxPriority), mpb.BarNoPop())
	}
	return t
}

// maxPriority is that of the last bar.
const maxPriority = 1 << 30

func (p *progress) newBar(name string, total int64, opts ...mpb.BarOption) *mpb.Bar {
	return p.pool.AddBar(total, append(opts,
		mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-20s", name))),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))...)
}

// end leaves the bars as they are.
func (p *progress) end() {
	if p.pool == nil {
		return
	}
	p.mu.Lock()
	for _, t := range p.travels {
		if t.bar != nil {
			t.bar.Abort(false)
		}
	}
	if p.total != nil {
		p.total.Abort(false)
	}
	p.mu.Unlock()
	p.pool.Wait()
}
