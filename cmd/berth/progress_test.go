package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbauerster/mpb/v8"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth/sdk/sync"
)

func newProgress(out io.Writer, pool *mpb.Progress) *progress {
	return &progress{out: out, pool: pool, sent: "sent", told: map[told]bool{}, travels: map[travel]*travelling{}}
}

func TestProgressIsALineForEachBlobWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, nil)
	desc := v1.Descriptor{Digest: digest.FromString("x"), Size: 2048}
	p.event(sync.Event{Descriptor: desc, Bytes: 1})
	p.event(sync.Event{Descriptor: desc, Bytes: 2048})
	if out.Len() != 0 {
		t.Errorf("bytes are told one by one: %s", &out)
	}
	for _, action := range []sync.Action{sync.Sent, sync.Existing, sync.Mounted, sync.Existing} { // the last for another image
		p.event(sync.Event{Descriptor: desc, Bytes: 2048, Action: action})
	}
	p.end()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %q", lines)
	}
	for _, line := range lines {
		if !progressLine.MatchString(line) || !strings.HasSuffix(line, "  2.0 KiB") {
			t.Errorf("got %q", line)
		}
	}
}

// Bars end whatever became of what they tell: a blob that came, one that broke off, one that began anew.
func TestProgressBarsEnd(t *testing.T) {
	p := newProgress(nil, newPool(io.Discard))
	var group errgroup.Group
	for _, content := range []string{"came", "broke off", "began anew", "is planned", "was there"} {
		desc := v1.Descriptor{Digest: digest.FromString(content), Size: 100}
		group.Go(func() error {
			switch content {
			case "came":
				p.event(sync.Event{Descriptor: desc, Bytes: 100})
				p.event(sync.Event{Descriptor: desc, Bytes: 100, Action: sync.Sent})
			case "broke off":
				p.event(sync.Event{Descriptor: desc, Bytes: 50})
			case "began anew":
				p.event(sync.Event{Descriptor: desc, Bytes: 90})
				p.event(sync.Event{Descriptor: desc, Bytes: 10})
			case "is planned":
				p.event(sync.Event{Descriptor: desc})
			case "was there":
				p.event(sync.Event{Descriptor: desc, Bytes: 100, Action: sync.Existing})
			}
			return nil
		})
	}
	group.Wait()
	p.end()
	if len(p.travels) != 4 {
		t.Errorf("%d blobs have travelled, want each that was not there", len(p.travels))
	}
	for key, travels := range p.travels {
		if travels.bar != nil && travels.bar.IsRunning() {
			t.Errorf("the bar of %s runs on", key.digest)
		}
	}
	if p.total.IsRunning() || p.sum != 400 || p.total.Current() != 100+50+10 {
		t.Errorf("in all %d bytes of %d have come, by the last bar %d", p.come, p.sum, p.total.Current())
	}
}
