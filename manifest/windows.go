package manifest

import (
	"slices"
	"strconv"
	"strings"
)

// ltsc2022 is the build of Windows Server 2022, the first whose successors run its images without a
// virtual machine (Microsoft, "Windows container version compatibility").
const ltsc2022 = 20348

// windowsVersion is major, minor, build and revision: 10.0.17763.1234.
type windowsVersion [4]int

// parseWindows reads a version that has at least a build.
func parseWindows(s string) (v windowsVersion, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) < 3 || len(parts) > len(v) {
		return v, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return v, false
		}
		v[i] = int(n)
	}
	return v, true
}

// runsWindows reports whether a host of one version runs an image of another. What is no version is
// only like itself.
func runsWindows(host, image string) bool {
	if host == "" || image == "" || host == image {
		return true
	}
	h, isVersion := parseWindows(host)
	i, alsoVersion := parseWindows(image)
	if !isVersion || !alsoVersion || h[0] != i[0] || h[1] != i[1] {
		return false
	}
	return h[2] == i[2] || i[2] >= ltsc2022 && i[2] < h[2]
}

// laterWindows reports whether version a is later than b. What is no version is earlier than all.
func laterWindows(a, b string) bool {
	first, _ := parseWindows(a)
	second, _ := parseWindows(b)
	return slices.Compare(first[:], second[:]) > 0
}
