package main

import (
	"encoding/json"
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

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// print writes data for programs or lines for people.
func (a *app) print(data any, lines []string) error {
	if a.json {
		return printJSON(data)
	}
	for _, line := range lines {
		if _, err := fmt.Println(line); err != nil {
			return err
		}
	}
	return nil
}

// progress shows how blobs travel: bars on a terminal, a line for each that has come anywhere else.
type progress struct {
	out  io.Writer
	pool *mpb.Progress

	mu   gosync.Mutex // guards the fields below
	bars map[digest.Digest]*mpb.Bar
}

func (a *app) progress() *progress {
	p := &progress{out: os.Stderr, bars: map[digest.Digest]*mpb.Bar{}}
	switch {
	case a.json:
		p.out = io.Discard
	case cwriter.IsTerminal(int(os.Stderr.Fd())):
		p.pool = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(40))
	}
	return p
}

// event is called from several goroutines.
func (p *progress) event(e sync.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.Action == "" && p.pool != nil:
		p.bar(e).SetCurrent(e.Bytes)
	case e.Action == "":
	case p.pool != nil && (p.bars[e.Descriptor.Digest] != nil || e.Action != sync.Existing && e.Action != sync.Sent):
		bar := p.bar(e) // one that is full at once, of what came from a file
		bar.SetCurrent(e.Descriptor.Size)
		bar.SetTotal(e.Descriptor.Size, true)
	case p.pool == nil:
		fmt.Fprintf(p.out, "%-8s  %s  %s\n", e.Action, short(e.Descriptor.Digest), size(e.Descriptor.Size))
	}
}

// bar returns a blob's bar, which appears with its first bytes.
func (p *progress) bar(e sync.Event) *mpb.Bar {
	if bar := p.bars[e.Descriptor.Digest]; bar != nil {
		return bar
	}
	bar := p.pool.AddBar(e.Descriptor.Size,
		mpb.PrependDecorators(decor.Name(short(e.Descriptor.Digest)+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
	p.bars[e.Descriptor.Digest] = bar
	return bar
}

// end leaves the bars as they are.
func (p *progress) end() {
	if p.pool == nil {
		return
	}
	p.mu.Lock()
	for _, bar := range p.bars {
		bar.Abort(false)
	}
	p.mu.Unlock()
	p.pool.Wait()
}

// short is the part of a digest that people compare.
func short(d digest.Digest) string {
	const most = 19 // "sha256:" and twelve digits
	return string(d[:min(len(d), most)])
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
