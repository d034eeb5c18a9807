package pin

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

func TestNormalize(t *testing.T) {
	a := "@" + string(hexOf("a"))
	tests := []struct{ in, want string }{
		{"hello", "hello:latest"},
		{"app/hello", "app/hello:latest"},
		{"app/hello:v1", "app/hello:v1"},
		{"app/hello:v1" + a, "app/hello:v1"},
		{"alpine:3.20", "alpine:3.20"},
		{"library/alpine:3.20", "library/alpine:3.20"},
		{"docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20"},
		{"docker.io/alpine", "docker.io/library/alpine:latest"},
		{"index.docker.io/alpine", "docker.io/library/alpine:latest"},
		{"Docker.IO/grafana/grafana:11", "docker.io/grafana/grafana:11"},
		{"quay.io/x", "quay.io/x:latest"},
		{"QUAY.io/x:V1", "quay.io/x:V1"},
		{"localhost/x:v1", "localhost/x:v1"},
		{"localhost:5000/x:v1", "localhost:5000/x:v1"},
		{"registry:5000/team/x", "registry:5000/team/x:latest"},
		{"127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"},
		{"[::1]:5000/x:v1", "[::1]:5000/x:v1"},
		{"quay.io/x:v1" + a, "quay.io/x:v1"},
	}
	for _, tt := range tests {
		got, err := Normalize(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("Normalize(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
		if again, err := Normalize(got); err != nil || again != got {
			t.Errorf("Normalize(%q) = %q, %v: it is not its own full form", got, again, err)
		}
	}
}

func TestNormalizeRefuses(t *testing.T) {
	tests := []struct {
		in   string
		want error
	}{
		{"", berth.ErrNameInvalid},
		{"App/hello:v1", berth.ErrNameInvalid},
		{"app/hello:", berth.ErrTagInvalid},
		{"app/hello:v 1", berth.ErrTagInvalid},
		{"app/hello@sha256:12", berth.ErrDigestInvalid},
		{"app/hello:v1@", berth.ErrDigestInvalid},
		{"app/hello@" + string(hexOf("a")), ErrInvalid},
		{"quay.io/app@" + string(hexOf("a")), ErrInvalid},
		{"quay.io/", berth.ErrNameInvalid},
		{"quay.io/App", berth.ErrNameInvalid},
		{"-.io/app", berth.ErrNameInvalid},
		{"host:port/app", berth.ErrNameInvalid},
		{"http://quay.io/app", berth.ErrNameInvalid},
		{"quay.io/app:v1\nx", berth.ErrTagInvalid},
		{"quay.io/" + strings.Repeat("a", 1000), berth.ErrNameInvalid},
		{strings.Repeat("a", 2000), berth.ErrNameInvalid},
	}
	for _, tt := range tests {
		got, err := Normalize(tt.in)
		if !errors.Is(err, tt.want) || got != "" {
			t.Errorf("Normalize(%.60q) = %q, %v, want %v", tt.in, got, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
			t.Errorf("Normalize(%.60q): not one short line: %v", tt.in, err)
		}
	}
}

func TestSplitHost(t *testing.T) {
	tests := []struct{ in, host, rest string }{
		{"hello:v1", "", "hello:v1"},
		{"app/hello:v1", "", "app/hello:v1"},
		{"docker.io/library/alpine:3.20", "docker.io", "library/alpine:3.20"},
		{"localhost:5000/x:v1", "localhost:5000", "x:v1"},
		{"localhost/x:v1", "localhost", "x:v1"},
		{"[::1]:5000/x:v1", "[::1]:5000", "x:v1"},
	}
	for _, tt := range tests {
		if host, rest := SplitHost(tt.in); host != tt.host || rest != tt.rest {
			t.Errorf("SplitHost(%q) = %q, %q, want %q, %q", tt.in, host, rest, tt.host, tt.rest)
		}
	}
}

// What is taken for a host is what the package takes for one that Docker's tools use.
func TestHosts(t *testing.T) {
	domain := regexp.MustCompile("^(?:" + reference.DomainRegexp.String() + ")$")
	label := rapid.OneOf(rapid.StringMatching(`[a-zA-Z0-9-]{0,4}`), rapid.StringMatching(`[ -~]{0,3}`), rapid.SampledFrom([]string{".", ":", "[", "]", "[::1]", ":5000", "_", "\n", "ä"}))
	rapid.Check(t, func(t *rapid.T) {
		host := strings.Join(rapid.SliceOfN(label, 0, 6).Draw(t, "host"), "")
		want := domain.MatchString(host)
		if got := hostPattern().MatchString(host); got != want {
			t.Errorf("%q is a host: %v, want %v", host, got, want)
		}
	})
}
