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

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/sync"
)

func TestSizeIsForPeople(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1024.0 KiB",
		1 << 20: "1.0 MiB", 5 << 29: "2.5 GiB", 1 << 40: "1024.0 GiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestShortIsWhatPeopleCompare(t *testing.T) {
	d := digest.FromString("x")
	if got := short(d); got != string(d[:19]) || !strings.HasPrefix(got, "sha256:") {
		t.Errorf("got %q", got)
	}
	if got := short("sha256:1"); got != "sha256:1" {
		t.Errorf("got %q", got)
	}
}

func newProgress(out io.Writer, pool *mpb.Progress) *progress {
	return &progress{out: out, pool: pool, bars: map[digest.Digest]*mpb.Bar{}}
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
	for _, action := range []sync.Action{sync.Sent, sync.Existing, sync.Mounted} {
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
	p := newProgress(nil, mpb.New(mpb.WithOutput(io.Discard)))
	var group errgroup.Group
	for _, content := range []string{"came", "broke off", "began anew", "was there"} {
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
			case "was there":
				p.event(sync.Event{Descriptor: desc, Bytes: 100, Action: sync.Existing})
			}
			return nil
		})
	}
	group.Wait()
	p.end()
	if len(p.bars) != 3 {
		t.Errorf("there were %d bars, want one for each blob that travelled", len(p.bars))
	}
	for d, bar := range p.bars {
		if bar.IsRunning() {
			t.Errorf("the bar of %s runs on", d)
		}
	}
}

func TestEachSourceGetsItsReference(t *testing.T) {
	for _, c := range []struct {
		sources string
		ref     string
		want    string
	}{
		{"oci:a", "app:v1,v2", "app:v1,v2"},
		{"oci:a:v9", "app", "app"},
		{"oci:a:v1 oci:b:v2", "app", "app:v1 app:v2"},
		{"oci:a:v1 oci-archive:a:v2 oci:a:v3", "app/hello", "app/hello:v1 app/hello:v2 app/hello:v3"},
		{"oci:a oci:b:v2", "app", ""},
		{"oci:a:v1 oci:b:v1", "app", ""},
		{"oci:a:v1 oci:b:v2", "app:v3", ""},
		{"oci:a:v1 oci:b:v2", "app,v3", ""},
		{"oci:a:v1 oci:b:-", "app", ""},
		{"oci:a:v1 nothing", "app", ""},
		{"nothing", "app", ""},
	} {
		pushes, err := planPushes(sdk.NewImages(nil), strings.Fields(c.sources), c.ref)
		var refs []string
		for _, p := range pushes {
			refs = append(refs, p.ref)
		}
		if got := strings.Join(refs, " "); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s to %s: got %q, %v; want %q", c.sources, c.ref, got, err, c.want)
		}
	}
}
