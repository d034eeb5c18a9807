package main

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/sdk"
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
