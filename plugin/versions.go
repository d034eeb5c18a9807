package plugin

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// spoken are the versions of the control plane that this build speaks: "1", or "1-2" for all from 1 to 2.
// The linker may set it, so that builds of several versions can be tried with each other.
var spoken = "1"

// Protocols is a range of versions of the control plane.
type Protocols struct {
	Oldest int `json:"oldest"`
	Newest int `json:"newest"`
}

// Spoken are the versions that this build speaks.
func Spoken() Protocols {
	oldest, newest, ok := strings.Cut(spoken, "-")
	p := Protocols{}
	p.Oldest, _ = strconv.Atoi(oldest)
	if p.Newest = p.Oldest; ok {
		p.Newest, _ = strconv.Atoi(newest)
	}
	return p
}

// Common returns the newest version that both speak; zero if there is none.
func (p Protocols) Common(q Protocols) int {
	if v := min(p.Newest, q.Newest); v >= max(p.Oldest, q.Oldest) {
		return v
	}
	return 0
}

// String returns "1", or "1 to 3".
func (p Protocols) String() string {
	if p.Oldest == p.Newest {
		return strconv.Itoa(p.Oldest)
	}
	return fmt.Sprintf("%d to %d", p.Oldest, p.Newest)
}

func (p Protocols) toProto() *controlpb.Protocols {
	return &controlpb.Protocols{Oldest: int32(p.Oldest), Newest: int32(p.Newest)}
}

func protocolsFromProto(p *controlpb.Protocols) Protocols {
	return Protocols{int(p.GetOldest()), int(p.GetNewest())}
}

// End is one end of the control plane, as the other one talks of it.
type End struct {
	Version   string
	Protocols Protocols
}

// Here is this build.
func Here() End { return End{Version(), Spoken()} }

// String returns "berth v1.2.3 (control protocol 1)".
func (e End) String() string {
	return fmt.Sprintf("berth %s (control protocol %s)", e.Version, e.Protocols)
}

// Meet fails where a host and a plugin do not understand each other.
//
// Errors: ErrIncompatible, which names both, and ends with the way out.
func Meet(host, plugin End, wayOut string) error {
	if host.Protocols.Common(plugin.Protocols) != 0 {
		return nil
	}
	return fmt.Errorf("%w: the registry is %s, and this program has %s; %s", ErrIncompatible, plugin, host, wayOut)
}

// Version is the module's version in this binary: "v1.2.3", or "devel" where it was built from a
// working tree.
func Version() string {
	const module = "github.com/berthoci/berth"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module && m.Version != "" && m.Version != "(devel)" {
			return m.Version
		}
	}
	return "devel"
}
