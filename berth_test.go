package berth

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestErrorsMatchByCode(t *testing.T) {
	remote := &Error{Code: "BLOB_UNKNOWN", Message: "no such layer", Detail: `{"digest":"x"}`}
	wrapped := fmt.Errorf("app/hello: %w", remote)
	if !errors.Is(wrapped, ErrBlobUnknown) {
		t.Error("an error of the same code does not match")
	}
	if errors.Is(wrapped, ErrManifestUnknown) {
		t.Error("an error of another code matches")
	}
	if errors.Is(ErrMounted, ErrBlobUnknown) || Code(ErrMounted) != "" {
		t.Error("ErrMounted is no failure and has no code")
	}
	if got := Code(errors.Join(errors.New("plain"), wrapped)); got != "BLOB_UNKNOWN" {
		t.Errorf("code of a joined error is %q", got)
	}
	if got := (&Error{Code: "DENIED"}).Error(); got != "DENIED" {
		t.Errorf("an error without a message says %q", got)
	}
}

func TestSentinelsHaveCodesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{ErrBlobUnknown, ErrUploadInvalid, ErrUploadUnknown, ErrDigestInvalid, ErrManifestBlobUnknown,
		ErrManifestInvalid, ErrManifestUnknown, ErrNameInvalid, ErrNameUnknown, ErrSizeInvalid, ErrTagInvalid, ErrUnauthorized,
		ErrDenied, ErrUnsupported, ErrTooManyRequests, ErrPreconditionFailed, ErrRangeInvalid, ErrLayoutInUse, ErrLayoutInvalid} {
		code := Code(err)
		if code == "" || code != strings.ToUpper(code) || seen[code] {
			t.Errorf("%v has the code %q", err, code)
		}
		seen[code] = true
	}
}

func TestParseReference(t *testing.T) {
	tests := []struct {
		text string
		want Reference
		err  error
	}{
		{"app", Reference{Repository: "app"}, nil},
		{"app/hello:v1", Reference{Repository: "app/hello", Tag: "v1"}, nil},
		{"a/b/c__d-e.f:V_1.2-x", Reference{Repository: "a/b/c__d-e.f", Tag: "V_1.2-x"}, nil},
		{"docker.io/library/alpine:3", Reference{Repository: "docker.io/library/alpine", Tag: "3"}, nil},
		{"app@" + someDigest, Reference{Repository: "app", Digest: someDigest}, nil},
		{"app:v1@" + someDigest, Reference{Repository: "app", Tag: "v1", Digest: someDigest}, nil},
		{"", Reference{}, ErrNameInvalid},
		{"App", Reference{}, ErrNameInvalid},
		{"app/", Reference{}, ErrNameInvalid},
		{"app//x", Reference{}, ErrNameInvalid},
		{"app__-x", Reference{}, ErrNameInvalid},
		{"../app", Reference{}, ErrNameInvalid},
		{"http://app", Reference{}, ErrTagInvalid},
		{"app:", Reference{}, ErrTagInvalid},
		{"app:-x", Reference{}, ErrTagInvalid},
		{"localhost:5000/app:v1", Reference{}, ErrTagInvalid},
		{"app:" + strings.Repeat("x", 129), Reference{}, ErrTagInvalid},
		{strings.Repeat("x", 256), Reference{}, ErrNameInvalid},
		{"app@", Reference{}, ErrDigestInvalid},
		{"app@sha256:abc", Reference{}, ErrDigestInvalid},
		{"app@md5:d41d8cd98f00b204e9800998ecf8427e", Reference{}, ErrDigestInvalid},
	}
	for _, tt := range tests {
		got, err := ParseReference(tt.text)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %+v, %v, want %+v, %v", tt.text, got, err, tt.want, tt.err)
		}
		if err == nil && got.String() != tt.text {
			t.Errorf("%q is written as %q", tt.text, got)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.20q…: the message has %d bytes", tt.text, len(err.Error()))
		}
	}
}

func TestReferenceTarget(t *testing.T) {
	for text, want := range map[string]string{"app": "latest", "app:v1": "v1", "app@" + someDigest: someDigest, "app:v1@" + someDigest: someDigest} {
		ref, err := ParseReference(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := ref.WithDefaultTag().Target(); got != want {
			t.Errorf("%s leads to %q, want %q", text, got, want)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{"app/hello:v1", "a@" + someDigest, "localhost:5000/x", ":", "@"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseReference(text)
		if err != nil {
			if Code(err) == "" {
				t.Errorf("an error without a code: %v", err)
			}
			return
		}
		if ref.String() != text {
			t.Errorf("%q is written as %q", text, ref)
		}
	})
}

func ExampleParseReference() {
	ref, err := ParseReference("app/hello")
	fmt.Println(ref.WithDefaultTag(), err)
	// Output: app/hello:latest <nil>
}

// The expressions are those of the distribution specification, section "Pulling manifests".
func FuzzNames(f *testing.F) {
	repository := regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag := regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	for _, name := range []string{"", "a", "a/b", "a//b", "/a", "a/", "a.b", "a..b", "a._b", "a__b", "a___b", "a---b", "-a", "a-", "A", "a\n",
		"a/b.c__d--e/f", "é", strings.Repeat("a", 128), strings.Repeat("a", 129), "v1.0-rc_1", ".a", "sha256:" + strings.Repeat("0", 64)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := ValidateRepository(name) == nil, repository.MatchString(name) && len(name) <= 255; got != want {
			t.Errorf("repository %q: got %v", name, got)
		}
		if got, want := ValidateTag(name) == nil, tag.MatchString(name); got != want {
			t.Errorf("tag %q: got %v", name, got)
		}
		if got, want := ValidateDigest(digest.Digest(name)) == nil, digest.Digest(name).Validate() == nil; got != want {
			t.Errorf("digest %q: got %v", name, got)
		}
	})
}
