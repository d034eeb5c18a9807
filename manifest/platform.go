package manifest

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

const (
	// annotationReferenceType marks what BuildKit puts into an index beside images: attestations.
	annotationReferenceType = "vnd.docker.reference.type"
	unknownPlatform         = "unknown"
	windows                 = "windows"
	// maxListed is how many platforms an error lists.
	maxListed         = 20
	maxPlatformLength = 100
)

// ParsePlatform reads os/architecture[/variant], with an optional version of the os: linux/amd64,
// linux/arm/v7, windows(10.0.17763)/amd64. Other names of the same are normalised as containerd does
// it: linux/aarch64 is linux/arm64. The os alone, or the architecture alone, is refused: the other
// half would be that of the machine this runs on.
//
// Errors: berth.ErrUnsupported.
func ParsePlatform(s string) (v1.Platform, error) {
	os, _, both := strings.Cut(s, "/")
	if !both || os == "" || len(s) > maxPlatformLength {
		return v1.Platform{}, fmt.Errorf("%.100q is no platform: use os/architecture or os/architecture/variant: %w", s, berth.ErrUnsupported)
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return v1.Platform{}, fmt.Errorf("%.100q is no platform: use os/architecture or os/architecture/variant: %w", s, berth.ErrUnsupported)
	}
	return platforms.Normalize(p), nil
}

// Select returns the child of an index for a platform. It matches as containerd does:
//
//   - names are normalised: arm64 is arm64/v8, arm is arm/v7, x86_64 is amd64;
//   - a machine runs what is older: arm/v7 also v6 and v5, amd64/v3 also v2 and v1, and where there
//     is nothing better arm64 runs arm, and amd64 runs 386. The nearest wins;
//   - on Windows a version of the os runs images of the same build; from Server 2022 on (build 20348)
//     also those of earlier builds down to that one. The latest wins. A side without version fits all;
//   - of children that are equally good the first wins (image-index.md).
//
// os.features are not looked at. A child without platform is never selected, for what it is stands
// in its config; nor is an attestation: platform unknown/unknown, or marked as one by BuildKit. The
// answer does not depend on the machine this runs on.
//
// Errors: berth.ErrManifestUnknown, with the platforms that there are; berth.ErrUnsupported where doc
// is not an Index, or the platform lacks an os or architecture.
func Select(doc *Document, platform v1.Platform) (v1.Descriptor, error) {
	return pick(doc, platform, orOlder)
}

// RunsOn reports whether an image for one platform runs on another, as Select would choose it. Both have an os and an
// architecture.
func RunsOn(image, platform v1.Platform) bool {
	want := wanted{platform: platforms.Normalize(platform), matcher: orOlder(platform)}
	return want.fits(&v1.Descriptor{Platform: &image})
}

// Platforms names the platforms that an index has images for, each once, the first of many.
func Platforms(doc *Document) string { return listPlatforms(doc) }

// FormatPlatform writes a platform as ParsePlatform reads it.
func FormatPlatform(p v1.Platform) string { return formatPlatform(&p) }

// exactly and orOlder make matchers. The os version is compared here, because how the library does
// that depends on the machine.
func exactly(p v1.Platform) platforms.MatchComparer { return platforms.OnlyStrict(withoutVersion(p)) }
func orOlder(p v1.Platform) platforms.MatchComparer { return platforms.Only(withoutVersion(p)) }

func withoutVersion(p v1.Platform) v1.Platform {
	return v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

func pick(doc *Document, platform v1.Platform, matching func(v1.Platform) platforms.MatchComparer) (v1.Descriptor, error) {
	switch {
	case doc.Kind != Index:
		return v1.Descriptor{}, fmt.Errorf("it is an image, only an index has platforms: %w", berth.ErrUnsupported)
	case platform.OS == "" || platform.Architecture == "":
		return v1.Descriptor{}, fmt.Errorf("a platform needs an os and an architecture: %w", berth.ErrUnsupported)
	}
	want := wanted{platform: platforms.Normalize(platform), matcher: matching(platform)}
	best := -1
	for i := range doc.Manifests {
		if want.fits(&doc.Manifests[i]) && (best < 0 || want.prefers(&doc.Manifests[i], &doc.Manifests[best])) {
			best = i
		}
	}
	if best < 0 {
		return v1.Descriptor{}, fmt.Errorf("%w: no supported platform: %s is asked for, the index has %s",
			berth.ErrManifestUnknown, formatPlatform(&platform), listPlatforms(doc))
	}
	return doc.Manifests[best], nil
}

// wanted is what children are compared with.
type wanted struct {
	platform v1.Platform
	matcher  platforms.MatchComparer
}

func (w wanted) fits(child *v1.Descriptor) bool {
	if !isImageFor(child) || !w.matcher.Match(withoutVersion(*child.Platform)) {
		return false
	}
	return w.platform.OS != windows || runsWindows(w.platform.OSVersion, child.Platform.OSVersion)
}

// prefers reports whether child is better than one that comes before it.
func (w wanted) prefers(child, than *v1.Descriptor) bool {
	a, b := withoutVersion(*child.Platform), withoutVersion(*than.Platform)
	switch {
	case w.matcher.Less(a, b):
		return true
	case w.matcher.Less(b, a) || w.platform.OS != windows || w.platform.OSVersion == "":
		return false
	}
	return laterWindows(child.Platform.OSVersion, than.Platform.OSVersion)
}

// isImageFor reports whether a child says what platform it is for. Half a platform is none: the
// library would complete it with that of the machine.
func isImageFor(child *v1.Descriptor) bool {
	p := child.Platform
	return p != nil && p.OS != "" && p.Architecture != "" && !isAttestation(child)
}

func isAttestation(child *v1.Descriptor) bool {
	if _, marked := child.Annotations[annotationReferenceType]; marked {
		return true
	}
	p := child.Platform
	return p != nil && p.OS == unknownPlatform && p.Architecture == unknownPlatform
}

// listPlatforms names what there is to select, each once.
func listPlatforms(doc *Document) string {
	var names []string
	seen := map[string]bool{}
	for i := range doc.Manifests {
		if child := &doc.Manifests[i]; isImageFor(child) && !seen[formatPlatform(child.Platform)] {
			names = append(names, formatPlatform(child.Platform))
			seen[names[len(names)-1]] = true
		}
	}
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > maxListed:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), len(names)-maxListed)
	}
	return strings.Join(names, ", ")
}

// formatPlatform writes a platform as ParsePlatform reads it, quoted if it is nothing that could be.
func formatPlatform(p *v1.Platform) string {
	s := platforms.FormatAll(*p)
	if len(s) > maxPlatformLength || strings.ContainsFunc(s, isOdd) {
		return fmt.Sprintf("%.100q", s)
	}
	return s
}

func isOdd(r rune) bool {
	return (r > '~' || !isToken(string(r))) && !strings.ContainsRune("/()", r)
}
